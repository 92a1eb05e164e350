"""Synthetic photographs, and pairs of them with a known homography."""

from pathlib import Path

import cv2
import numpy as np


def photograph(height: int = 360, width: int = 480, seed: int = 0) -> np.ndarray:
    """A grey photograph of blobs and edges of many sizes, uint8 (height, width)."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 110, np.uint8)
    for _ in range(400):
        centre = tuple(int(value) for value in rng.integers(0, [width, height]))
        radius, grey = int(rng.integers(3, 24)), int(rng.integers(0, 256))
        if rng.random() < 0.5:
            cv2.circle(image, centre, radius, grey, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(image, centre, (centre[0] + radius, centre[1] + 2 * radius), grey, -1)
    return cv2.GaussianBlur(image, (0, 0), 0.8)


def turn_and_shrink(height: int = 360, width: int = 480, degrees: float = 20.0, scale: float = 0.8) -> np.ndarray:
    """A homography, (3, 3): a rotation and scaling about the centre with slight perspective."""
    turn = np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale), [0, 0, 1]])
    return np.array([[1, 0, 0], [0, 1, 0], [1e-4, 5e-5, 1]]) @ turn


def write_pair(folder, degrees: float = 20.0, factor: int = 1):
    """Write a.png and b.png and return the homography from a to b; both are enlarged by `factor`."""
    image, homography = photograph(), turn_and_shrink(degrees=degrees)
    warped = cv2.warpPerspective(image, homography, image.shape[::-1], borderValue=110)
    for name, photo in (("a", image), ("b", warped)):
        if factor > 1:
            photo = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{name}.png"), photo)
    enlargement = np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2], [0, 0, 1]])
    return enlargement @ homography @ np.linalg.inv(enlargement)


def write_homography_sequence(folder: Path) -> Path:
    """Write 1.png, 2.png and H_1_2, the homography from the first to the second, into a new folder."""
    folder.mkdir(parents=True)
    homography = write_pair(folder)
    for number, name in enumerate("ab", 1):
        (folder / f"{name}.png").rename(folder / f"{number}.png")
    (folder / "H_1_2").write_text("\n".join(" ".join(map(str, row)) for row in homography))
    return folder
