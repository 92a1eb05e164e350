"""The real stereo pair inside the scikit-image wheel: Middlebury's motorcycle with its true disparity."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csametric.data.keypoints import detect_keypoints, keypoint_patches
from csametric.data.photo_patches import read_photo

KEYPOINTS = 5000
SEPARATION = 0.5  # a point dropped in one photograph only would have lost its partner in the other


class StereoPair(NamedTuple):
    """Two rectified photographs, uint8 (H, W), and the disparity (H, W) in pixels: left (x, y) is right (x - d, y).

    The disparity is inf where it is not known.
    """

    left: NDArray
    right: NDArray
    disparity: NDArray


@dataclass(frozen=True, kw_only=True)
class StereoPatches:
    """Patches around the keypoints of a stereo pair."""

    left_patches: NDArray  # uint8 (N, 32, 32)
    right_patches: NDArray  # uint8 (M, 32, 32)
    left_centres: NDArray  # x, y in pixels, (N, 2)
    right_centres: NDArray  # x, y in pixels, (M, 2)
    disparity: NDArray  # (H, W) in pixels, as in `StereoPair`


def motorcycle() -> StereoPair:
    """The pair in 741 x 500 pixels; it is never trained on."""
    folder = Path(str(files("skimage") / "data"))
    left, right = (read_photo(folder / f"motorcycle_{side}.png", max_side=741).pixels for side in ("left", "right"))
    with np.load(folder / "motorcycle_disp.npz") as archive:
        return StereoPair(left, right, archive["arr_0"])


@cache
def motorcycle_patches() -> StereoPatches:
    """The patches around the pair's keypoints; read and detected once per process."""
    pair = motorcycle()
    left, right = (detect_keypoints(image, KEYPOINTS, separation=SEPARATION) for image in (pair.left, pair.right))
    return StereoPatches(
        left_patches=keypoint_patches(pair.left, left),
        right_patches=keypoint_patches(pair.right, right),
        left_centres=left.centres,
        right_centres=right.centres,
        disparity=pair.disparity,
    )
