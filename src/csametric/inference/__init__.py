"""From a run or a bundle to embeddings, and from a run to a bundle."""
