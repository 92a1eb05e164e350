"""Errors of the relative pose of two calibrated photographs."""

import numpy as np
from numpy.typing import ArrayLike

AUC_THRESHOLDS = (5, 10, 20)  # degrees


def rotation_error(estimated: ArrayLike, true: ArrayLike) -> float:
    """The angle between two rotations (3, 3), degrees, in [0, 180].

    Examples:
        >>> rotation_error(np.diag([-1, -1, 1]), np.eye(3))
        180.0
    """
    cosine = (np.trace(np.asarray(estimated).T @ np.asarray(true)) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def translation_error(estimated: ArrayLike, true: ArrayLike) -> float:
    """The angle between two directions (3,) up to sign, degrees, in [0, 90]: an essential matrix does not tell the sign."""
    a, b = np.asarray(estimated, np.float64), np.asarray(true, np.float64)
    length = np.linalg.norm(a) * np.linalg.norm(b)
    if length == 0:
        return 90.0
    return float(np.degrees(np.arccos(np.clip(abs(a @ b) / length, 0, 1))))


def pose_error(rotation: ArrayLike, translation: ArrayLike, true_rotation: ArrayLike, true_translation: ArrayLike) -> float:
    """The larger of the two errors, degrees, used by the pose AUC at 5, 10 and 20 degrees (Yi et al. 2018; SuperGlue)."""
    return max(rotation_error(rotation, true_rotation), translation_error(translation, true_translation))
