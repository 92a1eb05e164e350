"""OpenCV's SIFT as a descriptor of extracted patches: the baseline for the networks."""

import cv2
import numpy as np
from numpy.typing import NDArray

SIFT_SUPPORT = 7.5


def sift_descriptors(patches_KSS: NDArray, root: bool = False) -> NDArray:
    """Compute the SIFT descriptor of each patch.

    The keypoint is upright, at the centre, and of such a size that its 4 x 4 histograms cover the patch: they extend over six
    times its size, 7.5 times with the half cell of interpolation on each side. Among factors from 4 to 9, 7.5 worked best on
    held-out patches.

    Args:
        patches_KSS: uint8 (K, S, S).
        root: whether to compute RootSIFT (Arandjelovic and Zisserman 2012), the square root of the L1-normalised descriptor.

    Returns:
        Unit vectors (K, 128).

    Examples:
        >>> sift_descriptors(np.zeros((2, 32, 32), np.uint8)).shape
        (2, 128)
    """
    side = patches_KSS.shape[-1]
    centre = (side - 1) / 2
    keypoint = cv2.KeyPoint(centre, centre, side / SIFT_SUPPORT, 0.0, 1.0, 0, -1)
    sift = cv2.SIFT.create()
    descriptors = [sift.compute(np.ascontiguousarray(patch), [keypoint])[1][0] for patch in patches_KSS]
    return normalize_sift(np.array(descriptors, np.float32).reshape(-1, 128), root)


def normalize_sift(descriptors_KD: NDArray, root: bool) -> NDArray:
    """Scale OpenCV's SIFT descriptors to unit length, as SIFT or as RootSIFT.

    Args:
        descriptors_KD: (K, 128), non-negative.
        root: whether to return RootSIFT.

    Returns:
        Unit vectors (K, 128).

    Examples:
        >>> normalize_sift(np.array([[9.0, 16.0]]), root=True)
        array([[0.6, 0.8]])
    """
    if root:
        return np.sqrt(descriptors_KD / np.maximum(descriptors_KD.sum(1, keepdims=True), 1e-7))
    return descriptors_KD / np.maximum(np.linalg.norm(descriptors_KD, axis=1, keepdims=True), 1e-7)
