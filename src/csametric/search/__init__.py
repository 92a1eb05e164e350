"""A gallery of embedded images: index, search, find doubles, remove."""
