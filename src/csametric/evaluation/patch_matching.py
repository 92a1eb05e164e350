"""Nearest-neighbour matching: of patches with known partners, and of a stereo pair with known disparity."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csametric.evaluation.ranking import average_precision_trapezoid


@dataclass(frozen=True, kw_only=True)
class PatchMatching:
    """accuracy: share of patches whose nearest target is their own, in [0, 1]; average_precision: of those matches
    ranked by distance, in [0, 1] (HPatches' matching task: N positives).
    """

    accuracy: float
    average_precision: float


@dataclass(frozen=True, kw_only=True)
class StereoMatching:
    """matches: (M, 2), indices of mutual nearest neighbours, left and right, whose left point has a known disparity.

    is_correct: (M,), within the tolerance. precision: the share that is, in [0, 1], nan without a match.
    """

    matches: NDArray
    is_correct: NDArray

    @property
    def correct(self) -> int:
        """How many matches are correct."""
        return int(self.is_correct.sum())

    @property
    def precision(self) -> float:
        """The share of matches that are correct, in [0, 1]; nan without a match."""
        return float(self.is_correct.mean()) if len(self.is_correct) else float("nan")


def evaluate_patch_matching(distances: ArrayLike) -> PatchMatching:
    """Match N reference patches to N targets by the nearest; the true partner of i is i.

    A partner counts as found only if it is strictly nearer than every other target (ties are pessimistic).

    Args:
        distances: (N, N), reference by target, lower is nearer, N >= 2.
    """
    distances_NN = np.asarray(distances, dtype=np.float64)
    count = len(distances_NN)
    if distances_NN.shape != (count, count) or count < 2:
        raise ValueError(f"distances must be (N, N) with N of at least 2, got {distances_NN.shape}")
    others_NN = distances_NN + np.where(np.eye(count, dtype=bool), np.inf, 0)
    nearest_other_N = others_NN.min(1)
    is_correct_N = distances_NN.diagonal() < nearest_other_N
    nearest_N = np.minimum(distances_NN.diagonal(), nearest_other_N)
    return PatchMatching(
        accuracy=float(is_correct_N.mean()),
        average_precision=average_precision_trapezoid(nearest_N, is_correct_N, positives=count),
    )


def mutual_nearest_neighbours(distances: ArrayLike) -> NDArray:
    """Pairs (i, j) in which each is the other's nearest, (M, 2), by rising i; of equals the first counts as nearest."""
    distances_NM = np.asarray(distances)
    if 0 in distances_NM.shape:
        return np.empty((0, 2), int)
    forward_N, backward_M = distances_NM.argmin(1), distances_NM.argmin(0)
    left_N = np.arange(len(forward_N))
    mutual_N = backward_M[forward_N] == left_N
    return np.stack([left_N[mutual_N], forward_N[mutual_N]], 1)


def evaluate_stereo_matching(
    distances: ArrayLike, left_points: ArrayLike, right_points: ArrayLike, disparity: ArrayLike, tolerance: float = 3.0
) -> StereoMatching:
    """Judge mutual nearest neighbours of a rectified pair by its true disparity.

    Args:
        distances: (N, M), left by right, lower is nearer.
        left_points, right_points: (N, 2) and (M, 2), x and y in pixels.
        disparity: (H, W) of the left photograph, in pixels, inf where unknown: (x, y) is (x - d, y) on the right.
        tolerance: a match is correct within so many pixels of the true place.
    """
    left_N2, right_M2, disparity_HW = np.asarray(left_points), np.asarray(right_points), np.asarray(disparity)
    matches = mutual_nearest_neighbours(distances)
    from_M2, to_M2 = left_N2[matches[:, 0]], right_M2[matches[:, 1]]
    columns, rows = np.rint(from_M2).astype(int).T
    shift_M = disparity_HW[rows, columns]
    known_M = np.isfinite(shift_M)
    errors_M = np.hypot(from_M2[known_M, 0] - shift_M[known_M] - to_M2[known_M, 0], from_M2[known_M, 1] - to_M2[known_M, 1])
    return StereoMatching(matches=matches[known_M], is_correct=errors_M <= tolerance)
