"""Compressed self-attention: the equations as written, the exact reordering, the seam between them, the layers."""
