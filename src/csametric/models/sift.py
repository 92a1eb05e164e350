"""OpenCV's SIFT as a descriptor of ready-cut patches: the baseline beside the networks."""

import cv2
import numpy as np
from numpy.typing import NDArray

SIFT_SUPPORT = 7.5


def sift_descriptors(patches_KSS: NDArray, root: bool = False) -> NDArray:
    """SIFT of each upright patch, (K, 128) of unit length.

    One upright keypoint stands at the centre, as large as its 4 x 4 histograms (six times its size, 7.5 with the half
    cell of interpolation on each side) need to cover the patch: of 4 to 9 times the size, the best on held-out patches.

    Args:
        patches_KSS: uint8 (K, S, S).
        root: RootSIFT (Arandjelovic and Zisserman 2012): the square root of the L1-normalised descriptor.
    """
    side = patches_KSS.shape[-1]
    centre = (side - 1) / 2
    keypoint = cv2.KeyPoint(centre, centre, side / SIFT_SUPPORT, 0.0, 1.0, 0, -1)
    sift = cv2.SIFT.create()
    described = [sift.compute(np.ascontiguousarray(patch), [keypoint])[1][0] for patch in patches_KSS]
    return normalize_sift(np.array(described, np.float32).reshape(-1, 128), root)


def normalize_sift(descriptors_KD: NDArray, root: bool) -> NDArray:
    """OpenCV's SIFT values, (K, 128), to unit length, as SIFT or as RootSIFT."""
    if root:
        return np.sqrt(descriptors_KD / np.maximum(descriptors_KD.sum(1, keepdims=True), 1e-7))
    return descriptors_KD / np.maximum(np.linalg.norm(descriptors_KD, axis=1, keepdims=True), 1e-7)
