"""Views of a keypoint: random homographies around its support region, sampled and altered in light, vectorised.

Legend: K keypoints, V views of each, S the side of a patch in pixels. Coordinates are (x, y), pixel centres at integers.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

PATCH_SIDE = 32
_VIEWS_AT_ONCE = 512  # keeps the arrays in the cache, and cv2.remap takes fewer than 32,768 rows


@dataclass(frozen=True, kw_only=True)
class ViewRange:
    """How far a view may stray from the upright patch; every range is symmetric and uniform unless stated.

    rotation: degrees. scale: share of the side. corner_jitter, shift: share of half the side, per corner and per view.
    contrast: the deviation of the log-normal factor. brightness: grey levels. noise: the largest deviation of the
    Gaussian noise, grey levels. blur: the largest sigma in patch pixels. blur_probability: in [0, 1].
    """

    rotation: float
    scale: float
    corner_jitter: float
    shift: float
    contrast: float = 0.2
    brightness: float = 10.0
    noise: float = 6.0
    blur: float = 1.2
    blur_probability: float = 0.3


LEVELS = {
    "easy": ViewRange(rotation=5, scale=0.10, corner_jitter=0.05, shift=0.05),
    "hard": ViewRange(rotation=10, scale=0.20, corner_jitter=0.10, shift=0.10),
    "tough": ViewRange(rotation=20, scale=0.30, corner_jitter=0.15, shift=0.15),
}


def upright_corners(centres_K2: NDArray, sides_K: NDArray) -> NDArray:
    """The four corners of upright squares, (K, 4, 2), clockwise from the upper left."""
    signs_42 = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)
    return centres_K2[:, None] + signs_42 * (sides_K / 2)[:, None, None]


def random_corners(corners_K42: NDArray, allowed: ViewRange, rng: np.random.Generator) -> NDArray:
    """Squares rotated, scaled, shifted and jittered at each corner within `allowed`, (K, 4, 2)."""
    count = len(corners_K42)
    centres_K12 = corners_K42.mean(1, keepdims=True)
    half_sides_K11 = np.ptp(corners_K42[..., 0], axis=1)[:, None, None] / 2
    angles_K = np.deg2rad(rng.uniform(-allowed.rotation, allowed.rotation, count))
    factors_K11 = 1 + rng.uniform(-allowed.scale, allowed.scale, (count, 1, 1))
    shifts_K12 = rng.uniform(-allowed.shift, allowed.shift, (count, 1, 2))
    jitter_K42 = rng.uniform(-allowed.corner_jitter, allowed.corner_jitter, (count, 4, 2))
    cosines_K, sines_K = np.cos(angles_K), np.sin(angles_K)
    rotations_K22 = np.stack([cosines_K, sines_K, -sines_K, cosines_K], 1).reshape(count, 2, 2)
    rotated_K42 = (corners_K42 - centres_K12) @ rotations_K22
    return centres_K12 + rotated_K42 * factors_K11 + half_sides_K11 * (shifts_K12 + jitter_K42)


def homographies(corners_K42: NDArray, side: int = PATCH_SIDE) -> NDArray:
    """Homographies from patch pixels to image pixels that send the patch's outer corners to `corners`, (K, 3, 3)."""
    source_42 = np.array([[0, 0], [side, 0], [side, side], [0, side]], dtype=np.float64) - 0.5
    u_4, v_4 = source_42.T
    x_K4, y_K4 = corners_K42[..., 0], corners_K42[..., 1]
    ones_4, zeros_4 = np.ones(4), np.zeros(4)
    shared_43 = np.stack([u_4, v_4, ones_4], 1)
    blank_43 = np.stack([zeros_4] * 3, 1)
    rows_x = np.concatenate([np.broadcast_to(np.hstack([shared_43, blank_43]), (len(x_K4), 4, 6)),
                             -x_K4[..., None] * source_42], 2)  # fmt: skip
    rows_y = np.concatenate([np.broadcast_to(np.hstack([blank_43, shared_43]), (len(y_K4), 4, 6)),
                             -y_K4[..., None] * source_42], 2)  # fmt: skip
    system_K88 = np.concatenate([rows_x, rows_y], 1)
    solution_K8 = np.linalg.solve(system_K88, np.concatenate([x_K4, y_K4], 1)[..., None])[..., 0]
    return np.concatenate([solution_K8, np.ones((len(x_K4), 1))], 1).reshape(-1, 3, 3)


def pyramid(image_HW: NDArray) -> list[NDArray]:
    """The image and its halvings by area, down to a side of 16 pixels."""
    levels = [image_HW]
    while min(levels[-1].shape) >= 32:
        height, width = levels[-1].shape
        levels.append(cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    return levels


def sample_patches(image_pyramid: list[NDArray], corners_K42: NDArray, side: int = PATCH_SIDE) -> NDArray:
    """Patches under quadrilaterals of the image, uint8 (K, S, S), bilinear, mirrored beyond the border.

    A large region is read from the level of the pyramid where a patch pixel covers one to two image pixels, which keeps
    aliasing away.
    """
    extents_K = np.ptp(corners_K42, axis=1).max(1)
    levels_K = np.floor(np.log2(np.maximum(extents_K / side, 1))).astype(int).clip(0, len(image_pyramid) - 1)
    patches_KSS = np.empty((len(corners_K42), side, side), np.uint8)
    for level in np.unique(levels_K):
        chosen = np.flatnonzero(levels_K == level)
        image_HW = image_pyramid[level]
        ratio = np.array(image_HW.shape[::-1]) / np.array(image_pyramid[0].shape[::-1])
        for start in range(0, len(chosen), _VIEWS_AT_ONCE):
            members = chosen[start : start + _VIEWS_AT_ONCE]
            corners = (corners_K42[members] + 0.5) * ratio - 0.5
            patches_KSS[members] = _warp(image_HW, homographies(corners, side), side)
    return patches_KSS


def _warp(image_HW: NDArray, homographies_K33: NDArray, side: int) -> NDArray:
    v, u = np.mgrid[:side, :side].astype(np.float32)
    grid_3P = np.stack([u.ravel(), v.ravel(), np.ones(side * side, np.float32)])
    mapped_K3P = homographies_K33.astype(np.float32) @ grid_3P
    xy_K2P = mapped_K3P[:, :2] / mapped_K3P[:, 2:]
    x, y = (np.ascontiguousarray(xy_K2P[:, axis]).reshape(-1, side) for axis in (0, 1))
    sampled = cv2.remap(image_HW, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return sampled.reshape(-1, side, side)


def alter_light(patches_KSS: NDArray, allowed: ViewRange, rng: np.random.Generator) -> NDArray:
    """Blur, contrast about the patch mean, brightness and noise within `allowed`, uint8 (K, S, S)."""
    count = len(patches_KSS)
    altered_KSS = patches_KSS.astype(np.float32)
    sigmas_K = rng.uniform(0, allowed.blur, count)
    for k in np.flatnonzero((rng.random(count) < allowed.blur_probability) & (sigmas_K > 0)):
        altered_KSS[k] = cv2.GaussianBlur(altered_KSS[k], (0, 0), sigmas_K[k])
    means_K11 = altered_KSS.mean((1, 2), keepdims=True)
    altered_KSS -= means_K11
    altered_KSS *= np.exp(rng.normal(0, allowed.contrast, (count, 1, 1)).astype(np.float32))
    altered_KSS += means_K11 + rng.uniform(-allowed.brightness, allowed.brightness, (count, 1, 1)).astype(np.float32)
    noise_KSS = rng.standard_normal(altered_KSS.shape, np.float32)
    noise_KSS *= rng.uniform(0, allowed.noise, (count, 1, 1)).astype(np.float32)
    altered_KSS += noise_KSS
    return np.rint(altered_KSS, out=altered_KSS).clip(0, 255, out=altered_KSS).astype(np.uint8)


def random_views(
    image_pyramid: list[NDArray], corners_K42: NDArray, views: int, allowed: ViewRange, rng: np.random.Generator
) -> NDArray:
    """V random views of each of K squares, uint8 (K, V, S, S)."""
    views_KVSS = np.empty((len(corners_K42), views, PATCH_SIDE, PATCH_SIDE), np.uint8)
    step = max(1, _VIEWS_AT_ONCE // views)
    for start in range(0, len(corners_K42), step):
        repeated = np.repeat(corners_K42[start : start + step], views, axis=0)
        patches = sample_patches(image_pyramid, random_corners(repeated, allowed, rng))
        views_KVSS[start : start + step] = alter_light(patches, allowed, rng).reshape(-1, *views_KVSS.shape[1:])
    return views_KVSS
