"""Stages of thinkseg."""
