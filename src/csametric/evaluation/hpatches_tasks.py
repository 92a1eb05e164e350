"""The three tasks of HPatches (Balntas et al. 2017) with every published way of averaging.

The descriptors of a sequence are a mapping from kinds (ref, e1 ... e5, h1 ... t5) to (N, D); distances are Euclidean. Among
equal distances wrong answers rank first, so that results do not depend on the order of files.

Legend: N patches of a sequence, D dimensions, M pairs, Q queries, R distractors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from csametric.distances import euclidean_distances, paired_distances
from csametric.evaluation.patch_matching import evaluate_patch_matching
from csametric.evaluation.ranking import average_precision_trapezoid

LEVELS = {"easy": "e", "hard": "h", "tough": "t"}
IMAGES = 6
POOLS = (100, 500, 1000, 5000, 10_000, 15_000, 20_000)
IMBALANCE = 5  # negatives a positive
_AT_ONCE = 65_536
_QUERIES_AT_ONCE = 500

OfKinds = Mapping[str, NDArray]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Scores of the verification task at one level with one kind of negatives, in [0, 1]."""

    roc_area: float  # of all pairs (balanced)
    average_precision: float  # of all negatives and the first fifth of the positives (imbalanced)


@dataclass(frozen=True, kw_only=True)
class HPatchesScores:
    """Scores of the three tasks; None if a task was not run."""

    verification: dict[str, dict[str, Verification]] | None = None  # by level, then "within" and "across" sequences
    matching: dict[str, float] | None = None  # mean average precision by level
    retrieval: dict[str, dict[int, float]] | None = None  # mean average precision by level, then by pool size

    @property
    def verification_mean(self) -> float | None:
        """The published figure: imbalanced average precision, averaged over levels and kinds of negatives."""
        if self.verification is None:
            return None
        return float(np.mean([scores.average_precision for level in self.verification.values() for scores in level.values()]))

    @property
    def matching_mean(self) -> float | None:
        """Mean average precision of matching over levels."""
        return None if self.matching is None else float(np.mean(list(self.matching.values())))

    @property
    def retrieval_mean(self) -> float | None:
        """Mean average precision of retrieval over levels and pools."""
        if self.retrieval is None:
            return None
        return float(np.mean([precision for level in self.retrieval.values() for precision in level.values()]))


def evaluate_verification(
    sequences: Sequence[OfKinds], positives: NDArray, within: NDArray, across: NDArray
) -> dict[str, dict[str, Verification]]:
    """Score the verification task: do two patches show the same point?

    Args:
        sequences: the descriptors of each sequence.
        positives, within, across: pairs (M, 6): sequence, image (0 is the reference) and patch of both.
    """
    scores = {}
    for level, letter in LEVELS.items():
        stacked, first_rows = _stack(sequences, letter)
        same, *others = (_pair_distances(stacked, first_rows, pairs) for pairs in (positives, within, across))
        scores[level] = {name: _verify(same, other) for name, other in zip(("within", "across"), others, strict=True)}
    return scores


def _stack(sequences: Sequence[OfKinds], letter: str) -> tuple[NDArray, NDArray]:
    """All descriptors of a level, and the row at which each sequence starts: its reference, then its targets."""
    kinds = ("ref", *(f"{letter}{image}" for image in range(1, IMAGES)))
    stacked = np.concatenate([of_kinds[kind] for of_kinds in sequences for kind in kinds])
    counts = np.array([len(of_kinds["ref"]) for of_kinds in sequences])
    return stacked, np.stack([IMAGES * (np.cumsum(counts) - counts), counts], 1)


def _pair_distances(stacked: NDArray, first_rows: NDArray, pairs_M6: NDArray) -> NDArray:
    rows = [first_rows[s, 0] + image * first_rows[s, 1] + patch for s, image, patch in (pairs_M6[:, :3].T, pairs_M6[:, 3:].T)]
    return np.concatenate(
        [
            paired_distances(*(torch.from_numpy(stacked[side[start : start + _AT_ONCE]]) for side in rows)).numpy()
            for start in range(0, len(pairs_M6), _AT_ONCE)
        ]
    )


def _verify(same: NDArray, other: NDArray) -> Verification:
    fewer = same[: len(same) // IMBALANCE]
    is_same = np.concatenate([np.ones(len(fewer)), np.zeros(len(other))])
    return Verification(
        roc_area=_roc_area(same, other),
        average_precision=average_precision_trapezoid(np.concatenate([fewer, other]), is_same),
    )


def _roc_area(same: NDArray, other: NDArray) -> float:
    """Area under the ROC curve: the share of (positive, negative) with the positive strictly nearer."""
    return float(len(other) - np.searchsorted(np.sort(other), same, side="right").mean()) / len(other)


def evaluate_matching(sequences: Sequence[OfKinds]) -> dict[str, float]:
    """Score the matching task, reference to five targets: mean average precision by level, over images and sequences."""
    return {
        level: float(
            np.mean(
                [
                    evaluate_patch_matching(_distances(of_kinds["ref"], of_kinds[f"{letter}{image}"])).average_precision
                    for of_kinds in sequences
                    for image in range(1, IMAGES)
                ]
            )
        )
        for level, letter in LEVELS.items()
    }


def evaluate_retrieval(
    sequences: Sequence[OfKinds], queries: NDArray, distractors: NDArray, pools: Sequence[int] = POOLS
) -> dict[str, dict[int, float]]:
    """Score the retrieval task, a query's five targets among other sequences: mean average precision by level and pool.

    A pool of size k holds the five targets and the first k - 5 distractors from other sequences than the query's.

    Args:
        queries, distractors: (Q, 2) and (R, 2): sequence and patch.
    """
    references = [_of_rows(sequences, rows, "ref") for rows in (queries, distractors)]
    precisions: dict[str, list[NDArray]] = {level: [] for level in LEVELS}
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        some = slice(start, start + _QUERIES_AT_ONCE)
        distances_QR = _distances(references[0][some], references[1])
        foreign_QR = distractors[None, :, 0] != queries[some, None, 0]
        distances_QR[~foreign_QR] = np.inf
        ends_QK = _pool_ends(foreign_QR, pools)
        for level, letter in LEVELS.items():
            targets_5QD = [_of_rows(sequences, queries[some], f"{letter}{image}") for image in range(1, IMAGES)]
            own_Q5 = np.stack([np.linalg.norm(targets - references[0][some], axis=1) for targets in targets_5QD], 1)
            precisions[level].append(_pool_precisions(np.sort(own_Q5, 1), distances_QR, ends_QK))
    return {
        level: dict(zip(pools, np.concatenate(queries).mean(0).tolist(), strict=True)) for level, queries in precisions.items()
    }


def _of_rows(sequences: Sequence[OfKinds], rows: NDArray, kind: str) -> NDArray:
    return np.stack([sequences[sequence][kind][patch] for sequence, patch in rows])


def _pool_ends(foreign_QR: NDArray, pools: Sequence[int]) -> NDArray:
    """The index at which each pool ends among the distractors of each query, (Q, pools)."""
    ranks_QR = foreign_QR.cumsum(1)
    return np.stack([(ranks_QR <= pool - (IMAGES - 1)).sum(1) for pool in pools], 1)


def _pool_precisions(own_Q5: NDArray, distances_QR: NDArray, ends_QK: NDArray) -> NDArray:
    """Average precision of each query in each pool, (Q, pools), from the sorted distances of its five targets."""
    nearer_QK5 = np.empty((*ends_QK.shape, own_Q5.shape[1]), np.int64)
    for place in range(own_Q5.shape[1]):
        nearer_QR = np.concatenate(
            [np.zeros((len(own_Q5), 1), np.int32), (distances_QR <= own_Q5[:, place, None]).cumsum(1, np.int32)], 1
        )
        nearer_QK5[..., place] = np.take_along_axis(nearer_QR, ends_QK, 1)
    hits_5 = np.arange(1, own_Q5.shape[1] + 1)
    before = np.where(nearer_QK5 + hits_5 > 1, (hits_5 - 1) / np.maximum(nearer_QK5 + hits_5 - 1, 1), 1.0)
    return ((before + hits_5 / (nearer_QK5 + hits_5)) / 2).mean(2)


def _distances(a_ND: NDArray, b_MD: NDArray) -> NDArray:
    return euclidean_distances(
        torch.from_numpy(np.ascontiguousarray(a_ND)), torch.from_numpy(np.ascontiguousarray(b_MD))
    ).numpy()
