"""From a video and a question to a mask video (seed 004): thinking, summary, segmentation."""
