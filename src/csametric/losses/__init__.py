"""Losses, each a pure function; those with settings also come as a thin module."""
