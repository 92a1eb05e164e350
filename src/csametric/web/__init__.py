"""The web server of the attention explorer."""
