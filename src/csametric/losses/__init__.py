"""Losses: a function and a thin class each."""
