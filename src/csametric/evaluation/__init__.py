"""Protocols: arrays in, dataclass out."""
