"""Weights as memory (seed 002): a planner whose output head holds one profiled configuration a row."""
