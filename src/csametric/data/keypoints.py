"""Difference-of-Gaussians keypoints of a grey photograph, detected by OpenCV."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from csametric.data.patch_views import pyramid, sample_patches, upright_corners

SUPPORT = 12.0  # side of the support region over the keypoint's size
CONTRAST_THRESHOLD = 0.04
SEPARATION = 3.0  # in sizes; a tough view shifts a point by up to 1.3 sizes, so two points stay apart
SIMILAR_SIZES = 1.5  # keypoints at one place whose sizes differ by less than this factor show the same thing


class Keypoints(NamedTuple):
    """K keypoints, strongest first.

    Examples:
        >>> keypoints = Keypoints(centres=np.array([[20.0, 30.0], [50.0, 40.0]]), sizes=np.array([2.0, 3.0]))
        >>> keypoints.strongest(1).corners(support=4.0).tolist()
        [[[16.0, 26.0], [24.0, 26.0], [24.0, 34.0], [16.0, 34.0]]]
    """

    centres: NDArray  # (K, 2), x and y in pixels
    sizes: NDArray  # (K,), diameters in pixels

    def strongest(self, limit: int) -> "Keypoints":
        """Keep at most `limit` keypoints."""
        return Keypoints(self.centres[:limit], self.sizes[:limit])

    def corners(self, support: float = SUPPORT) -> NDArray:
        """Return the corners of the upright support regions, squares with a side of `support` sizes, (K, 4, 2)."""
        return upright_corners(self.centres, support * self.sizes)


def detect_keypoints(
    image_HW: NDArray,
    limit: int,
    support: float = SUPPORT,
    contrast_threshold: float = CONTRAST_THRESHOLD,
    separation: float = SEPARATION,
) -> Keypoints:
    """Detect the strongest keypoints whose support regions lie inside the photograph.

    Args:
        image_HW: uint8 (H, W).
        limit: the maximum number of keypoints.
        support: the side of the support region over the keypoint's size.
        contrast_threshold: OpenCV's; a lower one finds more and weaker keypoints.
        separation: in sizes. A keypoint is dropped if a stronger one of similar size (within a factor of 1.5) is nearer
            than this: both show the same thing, so in training they would be false negatives of each other.

    Examples:
        >>> len(detect_keypoints(np.full((64, 64), 90, np.uint8), limit=10).sizes)  # a flat image
        0
    """
    detected = cv2.SIFT.create(contrastThreshold=contrast_threshold).detect(image_HW, None)
    table = np.array([(*point.pt, point.size, point.response) for point in detected]).reshape(-1, 4)
    # Strongest first; ties are broken by size, y and x, so that the order is deterministic.
    table = table[np.lexsort((table[:, 0], table[:, 1], table[:, 2], -table[:, 3]))]
    centres, sizes = table[:, :2], table[:, 2]
    half_sides = support * sizes[:, None] / 2
    height, width = image_HW.shape
    is_inside = ((centres >= half_sides) & (centres <= np.array([width - 1, height - 1]) - half_sides)).all(1)
    centres, sizes = centres[is_inside], sizes[is_inside]
    kept = _separated(centres, sizes, separation)[:limit]
    return Keypoints(centres[kept], sizes[kept])


def keypoint_patches(image_HW: NDArray, keypoints: Keypoints, support: float = SUPPORT) -> NDArray:
    """Sample the upright 32 x 32 patch of each keypoint.

    Args:
        image_HW: uint8 (H, W).
        keypoints: in pixels of the image.
        support: the side of the support region over the keypoint's size.

    Returns:
        uint8 (K, 32, 32).

    Examples:
        >>> image = np.full((90, 90), 128, np.uint8)
        >>> keypoint_patches(image, Keypoints(np.array([[45.0, 45.0]]), np.array([2.0]))).shape
        (1, 32, 32)
    """
    return sample_patches(pyramid(image_HW), keypoints.corners(support))


def _separated(centres_K2: NDArray, sizes_K: NDArray, separation: float) -> list[int]:
    """The indices of keypoints, sorted by strength, that have no stronger and similar one nearby."""
    from scipy.spatial import cKDTree

    if len(centres_K2) == 0:
        return []
    tree = cKDTree(centres_K2)
    is_dropped = np.zeros(len(centres_K2), bool)
    for k, (centre, size) in enumerate(zip(centres_K2, sizes_K, strict=True)):
        if not is_dropped[k]:
            near = np.array(tree.query_ball_point(centre, separation * size), dtype=int)
            is_similar = np.abs(np.log(sizes_K[near] / size)) < np.log(SIMILAR_SIZES)
            is_dropped[near[is_similar & (near > k)]] = True
    return list(np.flatnonzero(~is_dropped))
