"""Confidence intervals of a difference between two models, by paired resampling of queries or of labelled pairs.

Both models answer the same queries, so a resample draws queries and takes both answers.

Legend: S seeds, Q queries, M pairs, B resamples.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csametric.evaluation.verification import fpr95

RESAMPLES = 1000


class Interval(NamedTuple):
    """A difference and its 95 % interval."""

    difference: float
    low: float  # 2.5th percentile of the resampled differences
    high: float  # 97.5th percentile


def interval(difference: float, resampled_B: NDArray) -> Interval:
    """The percentile interval of a difference from its resamples (Efron 1979).

    Examples:
        >>> interval(0.5, np.linspace(0, 1, 1001))
        Interval(difference=0.5, low=0.025, high=0.975)
    """
    low, high = np.percentile(resampled_B, [2.5, 97.5])
    return Interval(difference, float(low), float(high))


def mean_differences(values: ArrayLike, baseline: ArrayLike, seed: int = 0, resamples: int = RESAMPLES) -> NDArray:
    """Differences of means, (B,), over resampled queries; each query's values are averaged over the seeds first.

    Args:
        values, baseline: (S, Q), one score per query: its average precision, or whether its first match is at rank 1. The
            two may have different numbers of seeds.
        seed: random seed of the resampling.
        resamples: B.

    Raises:
        ValueError: the numbers of queries differ.

    Examples:
        >>> mean_differences([0.9, 0.7], [0.4, 0.2], resamples=3).round(6).tolist()
        [0.5, 0.5, 0.5]
    """
    means = [np.atleast_2d(np.asarray(scores, np.float64)).mean(0) for scores in (values, baseline)]
    if means[0].shape != means[1].shape:
        raise ValueError(f"compare models on the same queries, got {len(means[0])} and {len(means[1])}")
    difference_Q = means[0] - means[1]
    count = len(difference_Q)
    draws_BQ = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    return draws_BQ @ difference_Q / count


def fpr95_differences(
    distances: ArrayLike, baseline: ArrayLike, is_match: ArrayLike, seed: int = 0, resamples: int = RESAMPLES // 5
) -> NDArray:
    """Differences of FPR95, (B,), over resampled pairs; rates are averaged over the seeds.

    Args:
        distances, baseline: (S, M), lower is nearer. The two may have different numbers of seeds.
        is_match: (M,), true or 1 for matches.
        seed: random seed of the resampling.
        resamples: B.

    Raises:
        ValueError: the numbers of pairs differ.

    Examples:
        >>> fpr95_differences([0.1, 0.9], [0.9, 0.1], [1, 0], resamples=2).tolist()
        [-1.0, -1.0]
    """
    ours_SM, theirs_SM = (np.atleast_2d(np.asarray(rows)) for rows in (distances, baseline))
    is_match_M = np.asarray(is_match, bool)
    if len({ours_SM.shape[1], theirs_SM.shape[1], len(is_match_M)}) > 1:
        raise ValueError(
            f"compare models on the same pairs, got {ours_SM.shape[1]} distances, {theirs_SM.shape[1]} of the baseline and "
            f"{len(is_match_M)} labels"
        )
    rng = np.random.default_rng(seed)
    strata = [np.flatnonzero(is_match_M), np.flatnonzero(~is_match_M)]  # matches and non-matches are resampled separately
    differences = []
    for _ in range(resamples):
        drawn = np.concatenate([rng.choice(stratum, len(stratum)) for stratum in strata])
        rates = [np.mean([fpr95(row[drawn], is_match_M[drawn]) for row in rows]) for rows in (ours_SM, theirs_SM)]
        differences.append(rates[0] - rates[1])
    return np.array(differences)
