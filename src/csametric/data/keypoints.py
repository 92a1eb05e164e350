"""Difference-of-Gaussians keypoints of a grey photograph, by OpenCV."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from csametric.data.patch_views import pyramid, sample_patches, upright_corners

SUPPORT = 12.0
CONTRAST_THRESHOLD = 0.04
SEPARATION = 3.0  # sizes: twice the 1.3 that the shift of a tough view reaches, so that points stay apart under it


class Keypoints(NamedTuple):
    """K keypoints, the strongest first: centres (K, 2) as x, y in pixels and sizes (K,), diameters in pixels."""

    centres: NDArray
    sizes: NDArray

    def strongest(self, limit: int) -> "Keypoints":
        """The first `limit` of them."""
        return Keypoints(self.centres[:limit], self.sizes[:limit])

    def corners(self, support: float = SUPPORT) -> NDArray:
        """The upright support regions, squares of `support` times the size, (K, 4, 2)."""
        return upright_corners(self.centres, support * self.sizes)


def detect_keypoints(
    image_HW: NDArray,
    limit: int,
    support: float = SUPPORT,
    contrast_threshold: float = CONTRAST_THRESHOLD,
    separation: float = SEPARATION,
) -> Keypoints:
    """The strongest keypoints whose support region lies inside the photograph, at most `limit`.

    Args:
        image_HW: uint8 (H, W).
        support: the side of the support region over the keypoint's size.
        contrast_threshold: OpenCV's; lower finds more and weaker points.
        separation: a weaker keypoint is dropped where a stronger one of nearly its size (within a factor of 1.5) lies
            nearer than this many sizes: two names for one thing would be each other's negatives.
    """
    found = cv2.SIFT.create(contrastThreshold=contrast_threshold).detect(image_HW, None)
    table = np.array([(*point.pt, point.size, point.response) for point in found]).reshape(-1, 4)
    table = table[np.lexsort((table[:, 0], table[:, 1], table[:, 2], -table[:, 3]))]
    centres, sizes = table[:, :2], table[:, 2]
    reach = support * sizes[:, None] / 2
    height, width = image_HW.shape
    inside = ((centres >= reach) & (centres <= np.array([width - 1, height - 1]) - reach)).all(1)
    centres, sizes = centres[inside], sizes[inside]
    kept = _separated(centres, sizes, separation)[:limit]
    return Keypoints(centres[kept], sizes[kept])


def keypoint_patches(image_HW: NDArray, keypoints: Keypoints, support: float = SUPPORT) -> NDArray:
    """The upright 32 x 32 patch of each keypoint, uint8 (K, 32, 32)."""
    return sample_patches(pyramid(image_HW), keypoints.corners(support))


def _separated(centres_K2: NDArray, sizes_K: NDArray, separation: float) -> list[int]:
    from scipy.spatial import cKDTree

    if len(centres_K2) == 0:
        return []
    tree = cKDTree(centres_K2)
    dropped = np.zeros(len(centres_K2), bool)
    for k, (centre, size) in enumerate(zip(centres_K2, sizes_K, strict=True)):
        if not dropped[k]:
            near = np.array(tree.query_ball_point(centre, separation * size), dtype=int)
            alike = np.abs(np.log(sizes_K[near] / size)) < np.log(1.5)
            dropped[near[alike & (near > k)]] = True
    return list(np.flatnonzero(~dropped))
