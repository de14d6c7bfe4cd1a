"""Stages of hierarchical semantic attention and feedback training (seed 003)."""
