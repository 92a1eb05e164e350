"""The real stereo pair inside the scikit-image wheel: Middlebury's motorcycle with its true disparity."""

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csametric.data.photos import read_photo


class StereoPair(NamedTuple):
    """Two rectified photographs, uint8 (H, W), and the disparity (H, W) in pixels: left (x, y) is right (x - d, y).

    The disparity is inf where it is not known.
    """

    left: NDArray
    right: NDArray
    disparity: NDArray


def motorcycle() -> StereoPair:
    """The pair in 741 x 500 pixels; it is never trained on."""
    folder = Path(str(files("skimage") / "data"))
    left, right = (read_photo(folder / f"motorcycle_{side}.png", max_side=741).pixels for side in ("left", "right"))
    with np.load(folder / "motorcycle_disp.npz") as archive:
        return StereoPair(left, right, archive["arr_0"])
