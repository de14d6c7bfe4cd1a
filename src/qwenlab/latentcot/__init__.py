"""Latent chain of thought: three training stages, and the loop that draws, reflects and redraws (seed 000)."""
