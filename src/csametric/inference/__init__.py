"""Load trained models, compute embeddings, and export bundles."""
