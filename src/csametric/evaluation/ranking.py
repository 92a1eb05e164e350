"""Average precision over a ranked list."""

import numpy as np
from numpy.typing import ArrayLike


def average_precision_trapezoid(distances: ArrayLike, is_correct: ArrayLike, positives: int | None = None) -> float:
    """Trapezoid area under precision over recall, with (recall 0, precision 1) in front, in [0, 1] (HPatches).

    Among equal distances the wrong ones rank first, so the answer does not depend on the order of the input.

    Args:
        distances: (N,), lower ranks first.
        is_correct: (N,), true or 1 for correct entries.
        positives: how many correct entries there are to find; by default those in the list.

    Raises:
        ValueError: shapes differ, or there is nothing to find.
    """
    distances_N, is_correct_N = np.asarray(distances, dtype=np.float64), np.asarray(is_correct).astype(bool)
    if distances_N.ndim != 1 or distances_N.shape != is_correct_N.shape:
        raise ValueError(f"distances and is_correct must share one shape (N,), got {distances_N.shape}, {is_correct_N.shape}")
    positives = int(is_correct_N.sum()) if positives is None else positives
    if positives < 1:
        raise ValueError("there is nothing to find: positives must be at least 1")
    ranked_N = is_correct_N[np.lexsort((is_correct_N, distances_N))]
    hits_N = np.cumsum(ranked_N)
    precision = np.concatenate([[1.0], hits_N / np.arange(1, len(ranked_N) + 1)])
    recall = np.concatenate([[0.0], hits_N / positives])
    return float(np.trapezoid(precision, recall))
