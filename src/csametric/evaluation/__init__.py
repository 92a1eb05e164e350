"""Evaluation protocols as pure functions: arrays in, a dataclass out."""
