"""The stereo pair inside the scikit-image wheel: Middlebury's motorcycle with its true disparity."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csametric.data.keypoints import detect_keypoints, keypoint_patches
from csametric.data.photo_patches import read_photo

KEYPOINTS = 5000  # maximum per photograph
SEPARATION = 0.5  # in sizes, smaller than in training: dropping a point in one photograph would lose its match in the other


class StereoPair(NamedTuple):
    """Two rectified photographs and their disparity."""

    left: NDArray  # uint8 (H, W)
    right: NDArray  # uint8 (H, W)
    disparity: NDArray  # (H, W), pixels: left (x, y) is right (x - disparity, y); inf where unknown


@dataclass(frozen=True, kw_only=True)
class StereoPatches:
    """Patches around the keypoints of a stereo pair."""

    left_patches: NDArray  # uint8 (N, 32, 32)
    right_patches: NDArray  # uint8 (M, 32, 32)
    left_centres: NDArray  # (N, 2), x and y in pixels
    right_centres: NDArray  # (M, 2), x and y in pixels
    disparity: NDArray  # (H, W), pixels, as in `StereoPair`


def read_motorcycle() -> StereoPair:
    """Read the motorcycle pair, 741 x 500 pixels; no model is trained on it.

    Examples:
        >>> read_motorcycle().disparity.shape
        (500, 741)
    """
    folder = Path(str(files("skimage") / "data"))
    left, right = (read_photo(folder / f"motorcycle_{side}.png", max_side=741).pixels for side in ("left", "right"))
    with np.load(folder / "motorcycle_disp.npz") as archive:
        return StereoPair(left, right, archive["arr_0"])


@cache
def motorcycle_patches() -> StereoPatches:
    """Detect the keypoints of the motorcycle pair and sample their patches, once per process.

    Examples:
        >>> patches = motorcycle_patches()
        >>> len(patches.left_patches) == len(patches.left_centres)
        True
    """
    pair = read_motorcycle()
    left, right = (detect_keypoints(image, KEYPOINTS, separation=SEPARATION) for image in (pair.left, pair.right))
    return StereoPatches(
        left_patches=keypoint_patches(pair.left, left),
        right_patches=keypoint_patches(pair.right, right),
        left_centres=left.centres,
        right_centres=right.centres,
        disparity=pair.disparity,
    )
