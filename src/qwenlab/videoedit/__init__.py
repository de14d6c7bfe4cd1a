"""Seed 001: video editing with Qwen-Image-Edit and test-time loss guidance (TTLG). No training, no changed weights."""
