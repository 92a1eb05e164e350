"""Two-view geometry from matches, by OpenCV's MAGSAC++ (Barath et al. 2020).

Legend: R matches.
"""

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Model = Literal["homography", "fundamental"]
LEAST = {"homography": 4, "fundamental": 8}  # matches that determine a model
MAX_ITERATIONS, CONFIDENCE = 10_000, 0.9999

MIN_INLIERS = 15  # inliers, the minimum that COLMAP uses


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """A homography or a fundamental matrix, and its inliers."""

    matrix: NDArray | None  # (3, 3), from the first photograph to the second; None if none was found
    inliers: NDArray  # (R,), booleans


@dataclass(frozen=True, kw_only=True)
class Pose:
    """The pose of the second camera relative to the first: x2 = rotation x1 + translation, up to scale."""

    rotation: NDArray  # (3, 3)
    translation: NDArray  # (3,), of unit length


def estimate_geometry(from_R2: NDArray, to_R2: NDArray, model: Model = "homography", threshold: float = 2.0) -> Geometry:
    """Estimate a homography or a fundamental matrix and its inliers from matches.

    Args:
        from_R2, to_R2: matched points in the first and second photograph, x and y in pixels.
        threshold: the largest noise of an inlier, pixels.

    Examples:
        >>> corners = np.array([[0, 0], [9, 0], [9, 9], [0, 9], [4, 5]])
        >>> bool(estimate_geometry(corners, corners + 2).inliers.all())
        True
    """
    no_geometry = Geometry(matrix=None, inliers=np.zeros(len(from_R2), bool))
    if len(from_R2) < LEAST[model]:
        return no_geometry
    estimate: Any = cv2.findHomography if model == "homography" else cv2.findFundamentalMat
    matrix, inliers = estimate(
        from_R2.astype(np.float64),
        to_R2.astype(np.float64),
        method=cv2.USAC_MAGSAC,
        ransacReprojThreshold=threshold,
        maxIters=MAX_ITERATIONS,
        confidence=CONFIDENCE,
    )
    if matrix is None or matrix.shape != (3, 3):
        return no_geometry
    return Geometry(matrix=matrix, inliers=inliers.ravel().astype(bool))


def inliers_by_chance(matches: int, model: Model, threshold: float, height: int, width: int) -> float:
    """The number of inliers that unrelated photographs may reach; only a model with more inliers is evidence.

    A random match is an inlier of a homography if it falls into a disc about its true point, with a fundamental matrix if it
    falls into a strip along its epipolar line. The bound is the mean of that count, plus six standard deviations and the
    matches that determine the model, because the search takes the best of many models.

    Args:
        matches: the number of matches.
        threshold: the largest noise of an inlier, pixels.
        height, width: of the second photograph, pixels.

    Examples:
        >>> inliers_by_chance(0, "homography", 2.0, 100, 100)
        14
    """
    disc, strip = np.pi * threshold**2, 2 * threshold * np.hypot(height, width)
    area = disc if model == "homography" else strip
    mean = matches * min(1.0, area / (height * width))
    return max(MIN_INLIERS - 1, LEAST[model] + mean + 6 * np.sqrt(mean))


def estimate_pose(
    from_R2: NDArray, to_R2: NDArray, from_camera: NDArray, to_camera: NDArray, threshold: float = 1.0
) -> Pose | None:
    """Estimate the relative pose of two calibrated cameras; None for fewer than five matches or if the estimation fails.

    Args:
        from_R2, to_R2: matched points in the first and second photograph, x and y in pixels.
        from_camera, to_camera: intrinsics, (3, 3).
        threshold: the largest noise of an inlier, pixels.
    """
    if len(from_R2) < 5:
        return None
    # in normalised image coordinates, where pixels are divided by the focal length
    first, second = (
        cv2.undistortPoints(points.astype(np.float64)[:, None], camera, None)[:, 0]
        for points, camera in ((from_R2, from_camera), (to_R2, to_camera))
    )
    focal = np.mean([camera[axis, axis] for camera in (from_camera, to_camera) for axis in (0, 1)])
    essential, inliers = cv2.findEssentialMat(
        first, second, np.eye(3), method=cv2.USAC_MAGSAC, prob=CONFIDENCE, threshold=threshold / focal
    )
    if essential is None or essential.shape[0] < 3:
        return None
    _, rotation, translation, _ = cv2.recoverPose(essential[:3], first, second, np.eye(3), mask=inliers.copy())
    return Pose(rotation=rotation, translation=translation.ravel())
