"""Scores of matches between two photographs of a plane, by the true homography.

Legend: R matches, T thresholds.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

MMA_THRESHOLDS = tuple(range(1, 11))  # pixels
AUC_THRESHOLDS = (3, 5, 10)  # pixels


def transfer(homography: NDArray, points_R2: NDArray) -> NDArray:
    """Map points (R, 2) of the first photograph into the second."""
    mapped = np.hstack([points_R2, np.ones((len(points_R2), 1))]) @ homography.T
    return mapped[:, :2] / mapped[:, 2:]


def transfer_errors(homography: ArrayLike, from_points: ArrayLike, to_points: ArrayLike) -> NDArray:
    """Distance in the second photograph between each match and its true position, pixels, (R,)."""
    from_R2, to_R2 = (np.asarray(points, np.float64).reshape(-1, 2) for points in (from_points, to_points))
    return np.linalg.norm(transfer(np.asarray(homography, np.float64), from_R2) - to_R2, axis=1)


def matching_accuracy(errors: ArrayLike, thresholds: Sequence[float] = MMA_THRESHOLDS) -> NDArray:
    """The share of matches within each threshold, (T,), in [0, 1]; 0 without matches (Mikolajczyk and Schmid 2005).

    Mean matching accuracy is its mean over pairs of photographs (D2-Net, Dusmanu et al. 2019).

    Examples:
        >>> matching_accuracy(np.array([0.5, 2.0, 9.0, 1.0]), [1, 3]).tolist()
        [0.5, 0.75]
    """
    errors_R = np.asarray(errors, np.float64)
    return np.array([(errors_R <= threshold).mean() if len(errors_R) else 0.0 for threshold in thresholds])


def corner_error(estimated: NDArray | None, true: NDArray, width: int, height: int) -> float:
    """Mean distance of the four corners under two homographies, pixels; inf if none was estimated (SuperPoint)."""
    if estimated is None:
        return float("inf")
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)
    with np.errstate(all="ignore"):
        error = np.linalg.norm(transfer(estimated, corners) - transfer(np.asarray(true, np.float64), corners), axis=1).mean()
    return float(error) if np.isfinite(error) else float("inf")


def areas_under_recall(errors: ArrayLike, thresholds: Sequence[float] = AUC_THRESHOLDS) -> NDArray:
    """Area under the curve of recall over error up to each threshold, divided by the threshold, (T,), in [0, 1].

    The exact area under the piecewise linear curve from (0, 0) through (error_i, i / R), as in SuperGlue's evaluation.

    Args:
        errors: one per pair of photographs, any unit, inf if the pair failed.

    Raises:
        ValueError: errors is empty.
    """
    errors_R = np.sort(np.asarray(errors, np.float64))
    if not len(errors_R):
        raise ValueError("need at least 1 error, got 0")
    recall = np.concatenate([[0.0], np.arange(1, len(errors_R) + 1) / len(errors_R)])
    at = np.concatenate([[0.0], errors_R])
    areas = []
    for threshold in thresholds:
        last = int(np.searchsorted(at, threshold))
        x, y = np.append(at[:last], threshold), np.append(recall[:last], recall[last - 1])
        areas.append(np.trapezoid(y, x) / threshold)
    return np.array(areas)
