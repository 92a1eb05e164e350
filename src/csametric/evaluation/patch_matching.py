"""Scores of nearest-neighbour matching: patches with known partners, and a stereo pair with known disparity."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csametric.evaluation.ranking import average_precision_trapezoid


@dataclass(frozen=True, kw_only=True)
class PatchMatching:
    """Scores of matching patches with known partners."""

    accuracy: float  # share of patches whose nearest target is their partner, in [0, 1]
    average_precision: float  # of the matches ranked by distance, in [0, 1] (HPatches' matching task: N positives)


@dataclass(frozen=True, kw_only=True)
class StereoMatching:
    """Mutual nearest neighbours of a stereo pair, judged by the true disparity."""

    matches: NDArray  # (M, 2), left and right indices of the matches whose left point has a known disparity
    is_correct: NDArray  # (M,), within the tolerance

    @property
    def correct(self) -> int:
        """The number of correct matches."""
        return int(self.is_correct.sum())

    @property
    def precision(self) -> float:
        """The share of matches that are correct, in [0, 1]; nan without matches."""
        return float(self.is_correct.mean()) if len(self.is_correct) else float("nan")


def evaluate_patch_matching(distances: ArrayLike) -> PatchMatching:
    """Match N reference patches to their nearest of N targets; the true partner of i is i.

    A match is correct only if the partner is strictly nearer than every other target (ties are pessimistic).

    Args:
        distances: (N, N), reference by target, lower is nearer, N >= 2.
    """
    distances_NN = np.asarray(distances, dtype=np.float64)
    count = len(distances_NN)
    if distances_NN.shape != (count, count) or count < 2:
        raise ValueError(f"distances must be (N, N) with N >= 2, got {distances_NN.shape}")
    others_NN = distances_NN + np.where(np.eye(count, dtype=bool), np.inf, 0)
    nearest_other_N = others_NN.min(1)
    is_correct_N = distances_NN.diagonal() < nearest_other_N
    nearest_N = np.minimum(distances_NN.diagonal(), nearest_other_N)
    return PatchMatching(
        accuracy=float(is_correct_N.mean()),
        average_precision=average_precision_trapezoid(nearest_N, is_correct_N, positives=count),
    )


def mutual_nearest_neighbours(distances: ArrayLike) -> NDArray:
    """Pairs (i, j) that are each other's nearest, (M, 2), sorted by i; among equals the first counts as nearest.

    Examples:
        >>> mutual_nearest_neighbours(np.array([[0.1, 0.9], [0.2, 0.8]])).tolist()
        [[0, 0]]
    """
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
    """Match a rectified stereo pair by mutual nearest neighbours and judge the matches by the true disparity.

    Args:
        distances: (N, M), left by right, lower is nearer.
        left_points, right_points: (N, 2) and (M, 2), x and y in pixels.
        disparity: (H, W) of the left photograph, in pixels, inf if unknown: (x, y) is (x - d, y) on the right.
        tolerance: pixels from the true position within which a match is correct.
    """
    left_N2, right_M2, disparity_HW = np.asarray(left_points), np.asarray(right_points), np.asarray(disparity)
    matches = mutual_nearest_neighbours(distances)
    from_M2, to_M2 = left_N2[matches[:, 0]], right_M2[matches[:, 1]]
    columns, rows = np.rint(from_M2).astype(int).T
    shift_M = disparity_HW[rows, columns]
    known_M = np.isfinite(shift_M)
    errors_M = np.hypot(from_M2[known_M, 0] - shift_M[known_M] - to_M2[known_M, 0], from_M2[known_M, 1] - to_M2[known_M, 1])
    return StereoMatching(matches=matches[known_M], is_correct=errors_M <= tolerance)
