"""Random views of keypoints: homographies around the support region, sampled from the photograph and altered in light.

Legend: K keypoints, V views of each, S side of a patch in pixels. Coordinates are (x, y), pixel centres at integers.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

PATCH_SIDE = 32
_VIEWS_AT_ONCE = 512  # keeps the arrays in the processor's cache; cv2.remap is limited to fewer than 32,768 rows


@dataclass(frozen=True, kw_only=True)
class ViewRange:
    """How far a view may differ from the upright patch; ranges are symmetric and uniform unless stated.

    Examples:
        >>> ViewRange(rotation=5, scale=0.1, corner_jitter=0, shift=0).noise
        6.0
    """

    rotation: float  # degrees
    scale: float  # relative to the side of the region
    corner_jitter: float  # relative to half the side, of each corner
    shift: float  # relative to half the side, of the whole view
    contrast: float = 0.2  # standard deviation of the logarithm of a log-normal factor
    brightness: float = 10.0  # grey levels
    noise: float = 6.0  # maximum standard deviation of the Gaussian noise, grey levels
    blur: float = 1.2  # maximum standard deviation of the Gaussian blur, patch pixels
    blur_probability: float = 0.3  # in [0, 1]


LEVELS = {
    "easy": ViewRange(rotation=5, scale=0.10, corner_jitter=0.05, shift=0.05),
    "hard": ViewRange(rotation=10, scale=0.20, corner_jitter=0.10, shift=0.10),
    "tough": ViewRange(rotation=20, scale=0.30, corner_jitter=0.15, shift=0.15),
}


def upright_corners(centres_K2: NDArray, sides_K: NDArray) -> NDArray:
    """Compute the corners of upright squares.

    Args:
        centres_K2: x and y.
        sides_K: the side of each square.

    Returns:
        (K, 4, 2), clockwise from the upper left.

    Examples:
        >>> upright_corners(np.array([[10.0, 20.0]]), np.array([4.0])).tolist()
        [[[8.0, 18.0], [12.0, 18.0], [12.0, 22.0], [8.0, 22.0]]]
    """
    signs_42 = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)
    return centres_K2[:, None] + signs_42 * (sides_K / 2)[:, None, None]


def random_corners(corners_K42: NDArray, view_range: ViewRange, rng: np.random.Generator) -> NDArray:
    """Rotate, scale and shift squares and jitter their corners at random.

    Args:
        corners_K42: upright squares, as `upright_corners` returns them.
        view_range: how far corners may move.
        rng: the only source of randomness.

    Returns:
        (K, 4, 2), the corners of the views.

    Examples:
        >>> square = upright_corners(np.array([[0.0, 0.0]]), np.array([20.0]))
        >>> shift_only = ViewRange(rotation=0, scale=0, corner_jitter=0, shift=0.1)
        >>> shifted = random_corners(square, shift_only, np.random.default_rng(0))
        >>> bool(np.abs(shifted - square).max() <= 0.1 * 20 / 2)
        True
    """
    count = len(corners_K42)
    centres_K12 = corners_K42.mean(1, keepdims=True)
    half_sides_K11 = np.ptp(corners_K42[..., 0], axis=1)[:, None, None] / 2
    angles_K = np.deg2rad(rng.uniform(-view_range.rotation, view_range.rotation, count))
    factors_K11 = 1 + rng.uniform(-view_range.scale, view_range.scale, (count, 1, 1))
    shifts_K12 = rng.uniform(-view_range.shift, view_range.shift, (count, 1, 2))
    jitter_K42 = rng.uniform(-view_range.corner_jitter, view_range.corner_jitter, (count, 4, 2))
    cosines_K, sines_K = np.cos(angles_K), np.sin(angles_K)
    rotations_K22 = np.stack([cosines_K, sines_K, -sines_K, cosines_K], 1).reshape(count, 2, 2)
    rotated_K42 = (corners_K42 - centres_K12) @ rotations_K22
    return centres_K12 + rotated_K42 * factors_K11 + half_sides_K11 * (shifts_K12 + jitter_K42)


def homographies(corners_K42: NDArray, side: int = PATCH_SIDE) -> NDArray:
    """Compute the homographies from patch pixels to image pixels that map the patch's outer corners to given corners.

    Args:
        corners_K42: in image pixels, clockwise from the upper left.
        side: of the patch, pixels.

    Returns:
        (K, 3, 3), with 1 in the lower right.

    Examples:
        >>> shift = homographies(upright_corners(np.array([[115.5, 215.5]]), np.array([32.0])), side=32)[0]
        >>> (shift @ [0, 0, 1]).round(6).tolist()  # the first patch pixel
        [100.0, 200.0, 1.0]
    """
    # Each corner gives two linear equations in the eight unknowns h of x = (h0 u + h1 v + h2) / (h6 u + h7 v + 1) and
    # y = (h3 u + h4 v + h5) / (h6 u + h7 v + 1).
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
    """Halve an image by area again and again.

    Returns:
        The image and its reductions, down to a shorter side of 16 to 31 pixels.

    Examples:
        >>> [level.shape for level in pyramid(np.zeros((64, 96), np.uint8))]
        [(64, 96), (32, 48), (16, 24)]
    """
    levels = [image_HW]
    while min(levels[-1].shape) >= 32:
        height, width = levels[-1].shape
        levels.append(cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    return levels


def sample_patches(image_pyramid: list[NDArray], corners_K42: NDArray, side: int = PATCH_SIDE) -> NDArray:
    """Sample the patches under quadrilaterals of an image, bilinearly and mirrored beyond the border.

    A large region is read from the level of the pyramid at which a patch pixel covers one to two image pixels, which avoids
    aliasing.

    Args:
        image_pyramid: from `pyramid`.
        corners_K42: in pixels of the full image, clockwise from the upper left.
        side: of the patches, pixels.

    Returns:
        uint8 (K, S, S).

    Examples:
        >>> image = np.arange(4096, dtype=np.uint16).reshape(64, 64).astype(np.uint8)
        >>> patch = sample_patches([image], upright_corners(np.array([[31.5, 31.5]]), np.array([32.0])))[0]
        >>> bool((patch == image[16:48, 16:48]).all())
        True
    """
    extents_K = np.ptp(corners_K42, axis=1).max(1)
    levels_K = np.floor(np.log2(np.maximum(extents_K / side, 1))).astype(int).clip(0, len(image_pyramid) - 1)
    patches_KSS = np.empty((len(corners_K42), side, side), np.uint8)
    for level in np.unique(levels_K):
        indices = np.flatnonzero(levels_K == level)
        image_HW = image_pyramid[level]
        ratio = np.array(image_HW.shape[::-1]) / np.array(image_pyramid[0].shape[::-1])
        for start in range(0, len(indices), _VIEWS_AT_ONCE):
            chunk = indices[start : start + _VIEWS_AT_ONCE]
            corners = (corners_K42[chunk] + 0.5) * ratio - 0.5  # + 0.5: pixel centres are at integers
            patches_KSS[chunk] = _warp(image_HW, homographies(corners, side), side)
    return patches_KSS


def _warp(image_HW: NDArray, homographies_K33: NDArray, side: int) -> NDArray:
    """Sample one image at the patch pixels mapped by each homography, uint8 (K, S, S)."""
    v, u = np.mgrid[:side, :side].astype(np.float32)
    grid_3P = np.stack([u.ravel(), v.ravel(), np.ones(side * side, np.float32)])
    mapped_K3P = homographies_K33.astype(np.float32) @ grid_3P
    xy_K2P = mapped_K3P[:, :2] / mapped_K3P[:, 2:]
    x, y = (np.ascontiguousarray(xy_K2P[:, axis]).reshape(-1, side) for axis in (0, 1))
    sampled = cv2.remap(image_HW, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return sampled.reshape(-1, side, side)


def alter_light(patches_KSS: NDArray, view_range: ViewRange, rng: np.random.Generator) -> NDArray:
    """Change the blur, contrast, brightness and noise of patches at random.

    Args:
        patches_KSS: uint8; not modified.
        view_range: how far they may change.
        rng: the only source of randomness.

    Returns:
        uint8 (K, S, S).

    Examples:
        >>> grey = np.full((3, 32, 32), 128, np.uint8)
        >>> alter_light(grey, LEVELS["easy"], np.random.default_rng(0)).shape
        (3, 32, 32)
    """
    count = len(patches_KSS)
    altered_KSS = patches_KSS.astype(np.float32)
    # Blur: few patches have any, so one at a time.
    sigmas_K = rng.uniform(0, view_range.blur, count)
    for k in np.flatnonzero((rng.random(count) < view_range.blur_probability) & (sigmas_K > 0)):
        altered_KSS[k] = cv2.GaussianBlur(altered_KSS[k], (0, 0), sigmas_K[k])
    # Contrast, about the mean of each patch, and brightness.
    means_K11 = altered_KSS.mean((1, 2), keepdims=True)
    altered_KSS -= means_K11
    altered_KSS *= np.exp(rng.normal(0, view_range.contrast, (count, 1, 1)).astype(np.float32))
    altered_KSS += means_K11 + rng.uniform(-view_range.brightness, view_range.brightness, (count, 1, 1)).astype(np.float32)
    # Noise.
    noise_KSS = rng.standard_normal(altered_KSS.shape, np.float32)
    noise_KSS *= rng.uniform(0, view_range.noise, (count, 1, 1)).astype(np.float32)
    altered_KSS += noise_KSS
    return np.rint(altered_KSS, out=altered_KSS).clip(0, 255, out=altered_KSS).astype(np.uint8)


def random_views(
    image_pyramid: list[NDArray], corners_K42: NDArray, views: int, view_range: ViewRange, rng: np.random.Generator
) -> NDArray:
    """Sample random views of squares in an image.

    Args:
        image_pyramid: from `pyramid`.
        corners_K42: upright squares, as `upright_corners` returns them.
        views: V, of each square.
        view_range: how far views may differ from the upright patch.
        rng: the only source of randomness.

    Returns:
        uint8 (K, V, S, S).

    Examples:
        >>> image = np.full((64, 64), 128, np.uint8)
        >>> squares = upright_corners(np.array([[32.0, 32.0], [30.0, 28.0]]), np.array([20.0, 24.0]))
        >>> random_views(pyramid(image), squares, 4, LEVELS["tough"], np.random.default_rng(0)).shape
        (2, 4, 32, 32)
    """
    views_KVSS = np.empty((len(corners_K42), views, PATCH_SIDE, PATCH_SIDE), np.uint8)
    step = max(1, _VIEWS_AT_ONCE // views)
    for start in range(0, len(corners_K42), step):
        repeated = np.repeat(corners_K42[start : start + step], views, axis=0)
        patches = sample_patches(image_pyramid, random_corners(repeated, view_range, rng))
        views_KVSS[start : start + step] = alter_light(patches, view_range, rng).reshape(-1, *views_KVSS.shape[1:])
    return views_KVSS
