"""Losses, each a pure function; some also as a thin module."""
