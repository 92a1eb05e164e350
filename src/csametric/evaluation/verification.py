"""Verification of pairs: FPR95 and the ROC curve that it is a point of."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from csametric.distances import paired_distances

DESCRIBE_AT_ONCE = 8192  # patches


def fpr95(distances: ArrayLike, is_match: ArrayLike) -> float:
    """The false positive rate at 95 % recall, in [0, 1]; lower is better (Brown and Lowe 2007).

    The threshold is the smallest distance at which at least 95 % of the matches are accepted; every non-match at a
    distance equal to or below it counts as a false positive, and the rate is over all non-matches.

    Args:
        distances: (N,), lower is nearer.
        is_match: (N,), true or 1 for matches.

    Raises:
        ValueError: shapes differ, a distance is NaN, or matches or non-matches are missing.

    Examples:
        >>> fpr95([0.1, 0.2, 0.3, 0.4], [1, 1, 0, 0])
        0.0
    """
    matches, non_matches = _split(distances, is_match)
    needed = -(-19 * len(matches) // 20)  # 95 %, rounded up
    threshold = np.partition(matches, needed - 1)[needed - 1]
    return float((non_matches <= threshold).mean())


def roc(distances: ArrayLike, is_match: ArrayLike) -> tuple[NDArray, NDArray]:
    """False and true positive rates at every distinct threshold, from (0, 0) to (1, 1); arguments are those of `fpr95`.

    Examples:
        >>> false_rates, true_rates = roc([0.1, 0.2], [1, 0])
        >>> false_rates.tolist(), true_rates.tolist()
        ([0.0, 0.0, 1.0], [0.0, 1.0, 1.0])
    """
    matches, non_matches = _split(distances, is_match)
    thresholds = np.unique(np.concatenate([matches, non_matches]))
    accepted = (np.searchsorted(np.sort(group), thresholds, side="right") / len(group) for group in (non_matches, matches))
    false_rates, true_rates = accepted
    return np.concatenate([[0.0], false_rates]), np.concatenate([[0.0], true_rates])


def _split(distances: ArrayLike, is_match: ArrayLike) -> tuple[NDArray, NDArray]:
    distances_N = np.asarray(distances, dtype=np.float64)
    is_match_N = np.asarray(is_match).astype(bool)
    if distances_N.ndim != 1 or distances_N.shape != is_match_N.shape:
        raise ValueError(f"distances and is_match must share one shape (N,), got {distances_N.shape} and {is_match_N.shape}")
    if np.isnan(distances_N).any():
        raise ValueError("some distances are NaN; check the descriptors")
    if is_match_N.all() or not is_match_N.any():
        raise ValueError("need both matches and non-matches, got only one of them")
    return distances_N[is_match_N], distances_N[~is_match_N]


def pair_distances(describe: Callable[[NDArray], NDArray], patches: NDArray, pairs_M2: NDArray) -> NDArray:
    """Euclidean distances between the descriptors of pairs of patches, float32 (M,); every patch is described once.

    Args:
        describe: uint8 (K, 32, 32) -> (K, D) of unit length.
        patches: uint8 (P, 32, 32), may be memory-mapped.
        pairs_M2: (M, 2), indices of patches.
    """
    used, places_2M = np.unique(pairs_M2.T, return_inverse=True)
    parts = [describe(patches[used[start : start + DESCRIBE_AT_ONCE]]) for start in range(0, len(used), DESCRIBE_AT_ONCE)]
    first, second = np.concatenate(parts)[places_2M.reshape(2, -1)]
    return paired_distances(torch.from_numpy(first), torch.from_numpy(second)).numpy()
