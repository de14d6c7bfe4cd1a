"""Stages of the resource planner (seed 002)."""
