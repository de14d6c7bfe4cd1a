"""The stages of video editing with test-time loss guidance (seed 001)."""
