"""Average precision over a ranked list."""

import numpy as np
from numpy.typing import ArrayLike


def average_precision_trapezoid(distances: ArrayLike, is_correct: ArrayLike, positives: int | None = None) -> float:
    """Area under the precision-recall curve by trapezoids, starting at recall 0, precision 1; in [0, 1] (HPatches).

    Among equal distances wrong entries rank first, so that the result does not depend on the order of the input.

    Args:
        distances: (N,), lower ranks first.
        is_correct: (N,), true or 1 for correct entries.
        positives: the number of correct entries to find; by default those in the list.

    Raises:
        ValueError: shapes differ, or positives is 0.

    Examples:
        >>> average_precision_trapezoid(np.array([0.1, 0.2, 0.3]), np.array([1, 0, 1]))
        0.7916666666666666
    """
    distances_N, is_correct_N = np.asarray(distances, dtype=np.float64), np.asarray(is_correct).astype(bool)
    if distances_N.ndim != 1 or distances_N.shape != is_correct_N.shape:
        raise ValueError(f"distances and is_correct must share one shape (N,), got {distances_N.shape}, {is_correct_N.shape}")
    positives = int(is_correct_N.sum()) if positives is None else positives
    if positives < 1:
        raise ValueError("positives must be at least 1, got 0")
    ranked_N = is_correct_N[np.lexsort((is_correct_N, distances_N))]
    hits_N = np.cumsum(ranked_N)
    precision = np.concatenate([[1.0], hits_N / np.arange(1, len(ranked_N) + 1)])
    recall = np.concatenate([[0.0], hits_N / positives])
    return float(np.trapezoid(precision, recall))
