"""How far a difference between two models may be chance: paired resampling of queries, or of labelled pairs.

Both models answer the same queries, so a resample draws queries and takes both answers. Legend: S seeds, Q queries, M pairs, B
resamples.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csametric.evaluation.verification import fpr95

RESAMPLES = 1000


class Interval(NamedTuple):
    """A difference and the bounds of its central 95 %."""

    difference: float
    low: float
    high: float


def interval(difference: float, resampled_B: NDArray) -> Interval:
    """The percentile interval of a difference (Efron 1979)."""
    low, high = np.percentile(resampled_B, [2.5, 97.5])
    return Interval(difference, float(low), float(high))


def mean_differences(values: ArrayLike, baseline: ArrayLike, seed: int = 0, resamples: int = RESAMPLES) -> NDArray:
    """Differences of means, (B,), over resampled queries; each query's values are averaged over the seeds first.

    Args:
        values, baseline: (S, Q), a score a query: an average precision, or whether it was found at rank 1. The numbers of seeds
            may differ.

    Raises:
        ValueError: the queries differ in number.
    """
    of_queries = [np.atleast_2d(np.asarray(each, np.float64)).mean(0) for each in (values, baseline)]
    if of_queries[0].shape != of_queries[1].shape:
        raise ValueError(f"{len(of_queries[0])} queries beside {len(of_queries[1])}; compare models on the same queries")
    difference_Q = of_queries[0] - of_queries[1]
    count = len(difference_Q)
    draws_BQ = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    return draws_BQ @ difference_Q / count


def fpr95_differences(
    distances: ArrayLike, baseline: ArrayLike, is_match: ArrayLike, seed: int = 0, resamples: int = RESAMPLES // 5
) -> NDArray:
    """Differences of false positive rates at 95 % recall, (B,), over resampled pairs; a mean over the seeds.

    Args:
        distances, baseline: (S, M). is_match: (M,).

    Raises:
        ValueError: the pairs differ in number.
    """
    ours_SM, theirs_SM = (np.atleast_2d(np.asarray(each)) for each in (distances, baseline))
    is_match_M = np.asarray(is_match, bool)
    if not ours_SM.shape[1] == theirs_SM.shape[1] == len(is_match_M):
        raise ValueError(f"{ours_SM.shape[1]} pairs beside {theirs_SM.shape[1]}; compare models on the same pairs")
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(is_match_M), np.flatnonzero(~is_match_M)]
    differences = []
    for _ in range(resamples):
        drawn = np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])
        rates = [np.mean([fpr95(row[drawn], is_match_M[drawn]) for row in each]) for each in (ours_SM, theirs_SM)]
        differences.append(rates[0] - rates[1])
    return np.array(differences)
