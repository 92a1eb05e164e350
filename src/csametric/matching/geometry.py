"""The geometry of two photographs from matches, by OpenCV's MAGSAC++ (Barath et al. 2020). Legend: R matches."""

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Model = Literal["homography", "fundamental"]
LEAST = {"homography": 4, "fundamental": 8}
MOST_ITERATIONS, CONFIDENCE = 10_000, 0.9999

LEAST_AGREEING = 15  # COLMAP's own


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """matrix: (3, 3), from the first photograph to the second, or None where none was found. inliers: (R,), booleans."""

    matrix: NDArray | None
    inliers: NDArray


@dataclass(frozen=True, kw_only=True)
class Pose:
    """The second camera as the first sees it: rotation (3, 3) and direction of translation (3,), of unit length."""

    rotation: NDArray
    translation: NDArray


def estimate_geometry(from_R2: NDArray, to_R2: NDArray, model: Model = "homography", threshold: float = 2.0) -> Geometry:
    """A homography or a fundamental matrix, and which matches agree with it.

    Args:
        from_R2, to_R2: x and y in pixels.
        threshold: the largest noise of an inlier, pixels.
    """
    nothing = Geometry(matrix=None, inliers=np.zeros(len(from_R2), bool))
    if len(from_R2) < LEAST[model]:
        return nothing
    find: Any = cv2.findHomography if model == "homography" else cv2.findFundamentalMat
    matrix, inliers = find(
        from_R2.astype(np.float64),
        to_R2.astype(np.float64),
        method=cv2.USAC_MAGSAC,
        ransacReprojThreshold=threshold,
        maxIters=MOST_ITERATIONS,
        confidence=CONFIDENCE,
    )
    if matrix is None or matrix.shape != (3, 3):
        return nothing
    return Geometry(matrix=matrix, inliers=inliers.ravel().astype(bool))


def agreeing_by_chance(matches: int, model: Model, threshold: float, height: int, width: int) -> float:
    """How many of unrelated matches may agree on the best model found: fewer than more than this say nothing.

    A stranger agrees with a homography in a disc about its place, with a fundamental matrix in a strip along its line; six
    standard deviations above the mean, and the matches that a model fits for free, make up for the search for the best.

    Args:
        height, width: of the second photograph, pixels.
    """
    disc, strip = np.pi * threshold**2, 2 * threshold * np.hypot(height, width)
    mean = matches * min(1.0, (disc if model == "homography" else strip) / (height * width))
    return max(LEAST_AGREEING - 1, LEAST[model] + mean + 6 * np.sqrt(mean))


def estimate_pose(
    from_R2: NDArray, to_R2: NDArray, from_camera: NDArray, to_camera: NDArray, threshold: float = 1.0
) -> Pose | None:
    """The relative pose of two calibrated cameras; None without five matches or an essential matrix.

    Args:
        from_camera, to_camera: intrinsics, (3, 3).
        threshold: pixels; divided by the mean focal length.
    """
    if len(from_R2) < 5:
        return None
    first, second = (
        cv2.undistortPoints(points.astype(np.float64)[:, None], camera, None)[:, 0]
        for points, camera in ((from_R2, from_camera), (to_R2, to_camera))
    )
    focal = np.mean([camera[place, place] for camera in (from_camera, to_camera) for place in (0, 1)])
    essential, inliers = cv2.findEssentialMat(
        first, second, np.eye(3), method=cv2.USAC_MAGSAC, prob=CONFIDENCE, threshold=threshold / focal
    )
    if essential is None or essential.shape[0] < 3:
        return None
    _, rotation, translation, _ = cv2.recoverPose(essential[:3], first, second, np.eye(3), mask=inliers.copy())
    return Pose(rotation=rotation, translation=translation.ravel())
