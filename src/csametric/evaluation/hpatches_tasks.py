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
IMAGES = 6  # of a sequence: the reference and five targets
POOLS = (100, 500, 1000, 5000, 10_000, 15_000, 20_000)
IMBALANCE = 5  # negatives per positive
_PAIRS_AT_ONCE = 65_536
_QUERIES_AT_ONCE = 500

SequenceDescriptors = Mapping[str, NDArray]  # by kind: "ref", "e1" ... "t5"


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
        """The published score: imbalanced average precision, averaged over levels and kinds of negatives."""
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
    sequences: Sequence[SequenceDescriptors], positives: NDArray, within: NDArray, across: NDArray
) -> dict[str, dict[str, Verification]]:
    """Score the verification task: do two patches show the same point?

    Args:
        sequences: the descriptors of each sequence.
        positives, within, across: pairs (M, 6): sequence, image (0 is the reference) and patch of each side.
    """
    scores = {}
    for level, letter in LEVELS.items():
        stacked, starts_and_counts = _stack(sequences, letter)
        same, different_within, different_across = (
            _pair_distances(stacked, starts_and_counts, pairs) for pairs in (positives, within, across)
        )
        scores[level] = {"within": _verify(same, different_within), "across": _verify(same, different_across)}
    return scores


def _stack(sequences: Sequence[SequenceDescriptors], letter: str) -> tuple[NDArray, NDArray]:
    """All descriptors of a level, and for each sequence its first row and its number of patches, (sequences, 2).

    The rows of a sequence are those of its reference, then those of its targets.
    """
    kinds = ("ref", *(f"{letter}{image}" for image in range(1, IMAGES)))
    stacked = np.concatenate([sequence[kind] for sequence in sequences for kind in kinds])
    counts = np.array([len(sequence["ref"]) for sequence in sequences])
    return stacked, np.stack([IMAGES * (np.cumsum(counts) - counts), counts], 1)


def _pair_distances(stacked: NDArray, starts_and_counts: NDArray, pairs_M6: NDArray) -> NDArray:
    sides = []
    for sequence, image, patch in (pairs_M6[:, :3].T, pairs_M6[:, 3:].T):
        start, count = starts_and_counts[sequence].T
        sides.append(start + image * count + patch)
    blocks = []
    for start in range(0, len(pairs_M6), _PAIRS_AT_ONCE):
        first, second = (torch.from_numpy(stacked[rows[start : start + _PAIRS_AT_ONCE]]) for rows in sides)
        blocks.append(paired_distances(first, second).numpy())
    return np.concatenate(blocks)


def _verify(same: NDArray, different: NDArray) -> Verification:
    fewer_same = same[: len(same) // IMBALANCE]
    is_same = np.concatenate([np.ones(len(fewer_same)), np.zeros(len(different))])
    return Verification(
        roc_area=_roc_area(same, different),
        average_precision=average_precision_trapezoid(np.concatenate([fewer_same, different]), is_same),
    )


def _roc_area(same: NDArray, different: NDArray) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in which the positive is strictly nearer."""
    return float(len(different) - np.searchsorted(np.sort(different), same, side="right").mean()) / len(different)


def evaluate_matching(sequences: Sequence[SequenceDescriptors]) -> dict[str, float]:
    """Score the matching task: match the reference of each sequence to its five targets.

    Args:
        sequences: the descriptors of each sequence.

    Returns:
        mean average precision over images and sequences, by level.
    """
    scores = {}
    for level, letter in LEVELS.items():
        precisions = []
        for sequence in sequences:
            for image in range(1, IMAGES):
                matching = evaluate_patch_matching(_distances(sequence["ref"], sequence[f"{letter}{image}"]))
                precisions.append(matching.average_precision)
        scores[level] = float(np.mean(precisions))
    return scores


def evaluate_retrieval(
    sequences: Sequence[SequenceDescriptors], queries: NDArray, distractors: NDArray, pools: Sequence[int] = POOLS
) -> dict[str, dict[int, float]]:
    """Score the retrieval task: rank the five targets of a query among distractors from other sequences.

    A pool of size k holds the five targets and the first k - 5 distractors that are not from the query's sequence.

    Args:
        sequences: the descriptors of each sequence.
        queries, distractors: (Q, 2) and (R, 2): sequence and patch.
        pools: the sizes of the pools.

    Returns:
        mean average precision over queries, by level and pool size.
    """
    query_QD, distractor_RD = (_select(sequences, rows, "ref") for rows in (queries, distractors))
    precisions: dict[str, list[NDArray]] = {level: [] for level in LEVELS}
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        block = slice(start, start + _QUERIES_AT_ONCE)
        # distances to the distractors; those of the query's own sequence never rank
        distances_QR = _distances(query_QD[block], distractor_RD)
        is_foreign_QR = distractors[None, :, 0] != queries[block, None, 0]
        distances_QR[~is_foreign_QR] = np.inf
        ends_QK = _pool_ends(is_foreign_QR, pools)
        # distances to the five targets at each level
        for level, letter in LEVELS.items():
            targets_5QD = [_select(sequences, queries[block], f"{letter}{image}") for image in range(1, IMAGES)]
            own_Q5 = np.stack([np.linalg.norm(target_QD - query_QD[block], axis=1) for target_QD in targets_5QD], 1)
            precisions[level].append(_pool_precisions(np.sort(own_Q5, 1), distances_QR, ends_QK))
    means = {level: np.concatenate(blocks).mean(0).tolist() for level, blocks in precisions.items()}
    return {level: dict(zip(pools, pool_means, strict=True)) for level, pool_means in means.items()}


def _select(sequences: Sequence[SequenceDescriptors], rows: NDArray, kind: str) -> NDArray:
    return np.stack([sequences[sequence][kind][patch] for sequence, patch in rows])


def _pool_ends(is_foreign_QR: NDArray, pools: Sequence[int]) -> NDArray:
    """The index at which each pool ends among the distractors of each query, (Q, pools)."""
    ranks_QR = is_foreign_QR.cumsum(1)
    return np.stack([(ranks_QR <= pool - (IMAGES - 1)).sum(1) for pool in pools], 1)


def _pool_precisions(own_Q5: NDArray, distances_QR: NDArray, ends_QK: NDArray) -> NDArray:
    """Average precision of each query in each pool, (Q, pools), from the sorted distances of its five targets."""
    nearer_QK5 = np.empty((*ends_QK.shape, own_Q5.shape[1]), np.int64)
    for target in range(own_Q5.shape[1]):
        # [q, r] is the number of nearer distractors among the first r
        nearer_QR = np.concatenate(
            [np.zeros((len(own_Q5), 1), np.int32), (distances_QR <= own_Q5[:, target, None]).cumsum(1, np.int32)], 1
        )
        nearer_QK5[..., target] = np.take_along_axis(nearer_QR, ends_QK, 1)
    # precision before and at each target; their mean is the height of the trapezoid of that step of recall
    hits_5 = np.arange(1, own_Q5.shape[1] + 1)
    before = np.where(nearer_QK5 + hits_5 > 1, (hits_5 - 1) / np.maximum(nearer_QK5 + hits_5 - 1, 1), 1.0)
    return ((before + hits_5 / (nearer_QK5 + hits_5)) / 2).mean(2)


def _distances(a_ND: NDArray, b_MD: NDArray) -> NDArray:
    return euclidean_distances(
        torch.from_numpy(np.ascontiguousarray(a_ND)), torch.from_numpy(np.ascontiguousarray(b_MD))
    ).numpy()
