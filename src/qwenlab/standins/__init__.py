"""How the tiny checkpoints are made. Each stands for a published one and for nothing a seed asks to train."""
