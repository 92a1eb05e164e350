"""Images and patches: where they come from, how they are drawn."""
