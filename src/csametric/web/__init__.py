"""The pages that a server gives: what the attention of a run looks at in a picture."""
