"""Matching of photographs: keypoints, descriptors, matches and two-view geometry."""
