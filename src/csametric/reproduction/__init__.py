"""The paper's tables and figures, each by one command: what they hold, which runs they need, how ours stand beside them."""
