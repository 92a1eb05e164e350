"""Figures, the attention explorer, and self-contained HTML pages."""
