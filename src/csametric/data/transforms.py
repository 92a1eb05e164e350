"""Image preparation for re-identification networks: reading, resizing, and random flips, shifts and erasing.

Images are uint8 (H, W, 3), RGB.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csametric.data.decoding import decode_colours

ERASING_ATTEMPTS = 100  # rectangles drawn until one fits into the image


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of a training image, drawn independently for every image."""

    flip: float = 0.5  # probability of a horizontal flip
    pad: int = 0  # pixels of black border, from which an image of the original size is cropped at random
    erasing: float = 0.0  # probability of erasing a rectangle (Zhong et al. 2020): 2 to 40 % of the area, aspect 0.3 to 3.3
    fill: tuple[int, int, int] = (124, 116, 104)  # RGB colour of the erased rectangle; by default ImageNet's mean


def read_image(path: Path, height: int, width: int) -> NDArray:
    """Read an image file as RGB and resize it bilinearly.

    Returns:
        uint8 (height, width, 3).

    Raises:
        UserError: the file is missing or cannot be decoded.
    """
    return resize(decode_colours(path), height, width)


def resize(image_HW3: NDArray, height: int, width: int) -> NDArray:
    """Resize an image bilinearly, with antialiasing where it shrinks.

    Args:
        image_HW3: uint8 (H, W, 3), or grey (H, W).
        height: in pixels.
        width: in pixels.

    Returns:
        uint8 (height, width, 3), or grey (height, width).

    Examples:
        >>> resize(np.zeros((128, 64, 3), np.uint8), 384, 128).shape
        (384, 128, 3)
    """
    if image_HW3.shape[:2] == (height, width):
        return image_HW3
    return np.asarray(Image.fromarray(image_HW3).resize((width, height), Image.Resampling.BILINEAR))


def augment(image_HW3: NDArray, settings: Augmentation, rng: np.random.Generator) -> NDArray:
    """Flip, shift and erase an image at random.

    Args:
        image_HW3: uint8 (H, W, 3); it is not modified.
        settings: which changes, and how likely.
        rng: the only source of randomness.

    Returns:
        uint8 (H, W, 3), possibly a view of the input.

    Examples:
        >>> image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
        >>> augment(image, Augmentation(flip=1.0), np.random.default_rng(0)).tolist()
        [[[3, 4, 5], [0, 1, 2]]]
    """
    if rng.random() < settings.flip:
        image_HW3 = image_HW3[:, ::-1]
    if settings.pad:
        image_HW3 = _shift(image_HW3, settings.pad, rng)
    if rng.random() < settings.erasing:
        image_HW3 = _erase(image_HW3, settings.fill, rng)
    return image_HW3


def _shift(image_HW3: NDArray, pad: int, rng: np.random.Generator) -> NDArray:
    height, width = image_HW3.shape[:2]
    top, left = rng.integers(0, 2 * pad + 1, size=2)
    return np.pad(image_HW3, ((pad, pad), (pad, pad), (0, 0)))[top : top + height, left : left + width]


def _erase(image_HW3: NDArray, fill: tuple[int, int, int], rng: np.random.Generator) -> NDArray:
    height, width = image_HW3.shape[:2]
    for _ in range(ERASING_ATTEMPTS):
        area = height * width * rng.uniform(0.02, 0.4)
        aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if rows < height and columns < width:
            erased = image_HW3.copy()
            top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
            erased[top : top + rows, left : left + columns] = fill
            return erased
    return image_HW3
