"""Images as networks of re-identification take them: read, resized, flipped, shifted, erased. Images are uint8 (H, W, 3)."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csametric.data.decoding import decode_colours


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What happens to a training image; each of an image's own chance.

    flip: the probability of a horizontal flip. pad: pixels of black around the image before a random crop of its own size.
    erasing: the probability of random erasing (Zhong et al. 2020): a rectangle of 2 to 40 % of the area and an aspect of 0.3
    to 3.3 gets the colour `fill`.
    """

    flip: float = 0.5
    pad: int = 0
    erasing: float = 0.0
    fill: tuple[int, int, int] = (124, 116, 104)  # ImageNet's mean


def read_image(path: Path, height: int, width: int) -> NDArray:
    """An image file as RGB, resized bilinearly to (height, width, 3), uint8; raises as `decode_colours`."""
    return resize(decode_colours(path), height, width)


def resize(image_HW3: NDArray, height: int, width: int) -> NDArray:
    """Bilinear, with antialiasing where it shrinks; uint8 (height, width, 3)."""
    if image_HW3.shape[:2] == (height, width):
        return image_HW3
    return np.asarray(Image.fromarray(image_HW3).resize((width, height), Image.Resampling.BILINEAR))


def augment(image_HW3: NDArray, how: Augmentation, rng: np.random.Generator) -> NDArray:
    """Flip, shift, erase: a pure function of the image and the generator; the input stays as it is."""
    if rng.random() < how.flip:
        image_HW3 = image_HW3[:, ::-1]
    if how.pad:
        image_HW3 = _shift(image_HW3, how.pad, rng)
    return _erase(image_HW3, how.fill, rng) if rng.random() < how.erasing else image_HW3


def _shift(image_HW3: NDArray, pad: int, rng: np.random.Generator) -> NDArray:
    height, width = image_HW3.shape[:2]
    top, left = rng.integers(0, 2 * pad + 1, size=2)
    return np.pad(image_HW3, ((pad, pad), (pad, pad), (0, 0)))[top : top + height, left : left + width]


def _erase(image_HW3: NDArray, fill: tuple[int, int, int], rng: np.random.Generator) -> NDArray:
    height, width = image_HW3.shape[:2]
    for _ in range(100):
        area = height * width * rng.uniform(0.02, 0.4)
        aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if rows < height and columns < width:
            erased = image_HW3.copy()
            top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
            erased[top : top + rows, left : left + columns] = fill
            return erased
    return image_HW3
