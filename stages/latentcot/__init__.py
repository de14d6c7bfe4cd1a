"""Stages of the system latentcot (seed 000)."""
