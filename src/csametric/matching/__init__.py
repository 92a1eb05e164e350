"""Keypoints, descriptors, matches and geometry of two photographs or many."""
