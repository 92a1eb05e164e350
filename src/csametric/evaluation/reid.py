"""Re-identification metrics: CMC, average precision in both common definitions, mINP; single query.

Conventions: gallery entries of identity -1 (junk) are dropped, those of 0 (distractors) stay. Entries of a query's identity
and camera are dropped too, unless the camera filter is off. Among equal distances non-matches rank first, so that results do
not depend on the order of the gallery. Queries without a match are left out of all means and reported separately.

Legend: Q queries, G gallery entries, B of them in a block, D dimensions, M matches of a query, S pairs of one identity.
"""

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csametric.distances import MEASURES, Measure
from csametric.errors import UserError
from csametric.evaluation.features import Array, finite_tensor
from csametric.evaluation.rerank import k_reciprocal_distances

JUNK = -1
CMC_LENGTH = 1000
BLOCK_BYTES = 256 << 20  # of distances at a time
QUERIES_AT_ONCE = 64
SORT_ABOVE_MATCHES = 64  # with more matches per query, sorting the row is faster than counting once per match

LabelList = Array | Sequence[Hashable]  # one label per image
Blocks = Callable[[], Iterable[tuple[int, NDArray]]]  # yields (first gallery column, distances (Q, B))


@dataclass(frozen=True, kw_only=True)
class ReidMetrics:
    """Scores in [0, 1], averaged over the Q queries that have a match, and the values of each of these queries."""

    cmc: NDArray  # at index k - 1 the share of queries with a match among the first k; up to 1000 or the gallery's size
    map_step: float  # average precision as the mean of the precisions at the matches (torchreid, fast-reid)
    map_trapezoid: float  # as the mean of the precisions before and at the matches (official Matlab code, PCB's tables)
    minp: float  # number of matches over the rank of the last one (Ye et al. 2021)
    queries: int  # Q
    queries_without_match: list[int]  # indices, counted among all queries
    camera_filter: bool  # whether gallery entries of a query's identity and camera were left out
    first_match: NDArray  # (Q,), rank of the first match, from 1
    ap_step: NDArray  # (Q,)
    ap_trapezoid: NDArray  # (Q,)

    def rank(self, k: int) -> float:
        """The CMC at rank k, counted from 1."""
        if k < 1:
            raise UserError(f"a rank must be at least 1, got {k}")
        return float(self.cmc[min(k, len(self.cmc)) - 1])


class Labels(NamedTuple):
    """Identities and cameras of N images as numbers."""

    ids: NDArray  # (N,), int64
    cameras: NDArray  # (N,), int64


def evaluate_reid(
    query_features: Array,
    query_ids: LabelList,
    query_cameras: LabelList | None,
    gallery_features: Array,
    gallery_ids: LabelList,
    gallery_cameras: LabelList | None,
    distance: str = "euclidean",
    camera_filter: bool = True,
    rerank: bool = False,
) -> ReidMetrics:
    """Evaluate features (Q, D) against (G, D); a gallery that is memory-mapped from disk is read in blocks, twice.

    Args:
        query_ids, gallery_ids: whole numbers, of which -1 is junk and 0 a distractor; or names or any other hashable labels.
        query_cameras, gallery_cameras: the same; None turns the camera filter off, and `ReidMetrics.camera_filter` says so.
        distance: "euclidean" or "cosine".
        camera_filter: True drops gallery entries of the query's identity and camera; use False if there is one camera.
        rerank: True applies k-reciprocal re-ranking first (Zhong et al. 2017); needs Euclidean distances.

    Raises:
        UserError: sizes that do not agree, labels that are floating-point numbers, an unknown distance, re-ranking of cosines,
            features that are not finite, or no query with a match.

    Examples:
        >>> features = torch.eye(3)
        >>> metrics = evaluate_reid(features, [1, 2, 3], [0, 0, 0], features, [1, 2, 3], [1, 1, 1])
        >>> metrics.rank(1), metrics.map_step
        (1.0, 1.0)
    """
    if distance not in MEASURES:
        raise UserError(f"distance must be one of {', '.join(MEASURES)}, got {distance!r}")
    queries, gallery = _labels(query_ids, query_cameras, gallery_ids, gallery_cameras)
    camera_filter = camera_filter and query_cameras is not None and gallery_cameras is not None
    _check_size("query_features", query_features, queries)
    _check_size("gallery_features", gallery_features, gallery)
    query_size, gallery_size = np.shape(query_features)[-1], np.shape(gallery_features)[-1]
    if query_size != gallery_size:
        raise UserError(f"queries have {query_size} dimensions and gallery entries {gallery_size}; use features of one model")
    if rerank and distance != "euclidean":
        raise UserError(f"re-ranking needs Euclidean distances, got distance={distance!r}; use rerank=False")
    if rerank:
        distances_QG = k_reciprocal_distances(query_features, gallery_features)
        return _evaluate(lambda: [(0, distances_QG)], queries, gallery, camera_filter)
    return _evaluate(_distance_blocks(query_features, gallery_features, MEASURES[distance]), queries, gallery, camera_filter)


def evaluate_distances(
    distances: Array,
    query_ids: LabelList,
    query_cameras: LabelList | None,
    gallery_ids: LabelList,
    gallery_cameras: LabelList | None,
    camera_filter: bool = True,
) -> ReidMetrics:
    """Evaluate distances (Q, G), lower is nearer; see `evaluate_reid`.

    Raises:
        UserError: sizes that do not agree, distances that are NaN, or no query with a match.

    Examples:
        >>> metrics = evaluate_distances([[0.1, 0.2, 0.3]], [7], [0], [7, 8, 7], [1, 1, 2])
        >>> metrics.rank(1), round(metrics.map_step, 3)
        (1.0, 0.833)
    """
    queries, gallery = _labels(query_ids, query_cameras, gallery_ids, gallery_cameras)
    camera_filter = camera_filter and query_cameras is not None and gallery_cameras is not None
    distances_QG = _numpy(distances)
    if distances_QG.shape != (len(queries.ids), len(gallery.ids)):
        raise UserError(
            f"distances must have one row per query and one column per gallery entry, "
            f"({len(queries.ids)}, {len(gallery.ids)}), got {distances_QG.shape}"
        )
    return _evaluate(lambda: [(0, distances_QG)], queries, gallery, camera_filter)


def nearest_entries(
    distances: Array,
    query_ids: LabelList,
    query_cameras: LabelList | None,
    gallery_ids: LabelList,
    gallery_cameras: LabelList | None,
    count: int = 10,
    camera_filter: bool = True,
) -> list[NDArray]:
    """Indices of the nearest gallery entries of each query, at most `count`, nearest first, from distances (Q, G).

    Junk is left out; with the camera filter so are entries of the query's identity and camera.
    """
    queries, gallery = _labels(query_ids, query_cameras, gallery_ids, gallery_cameras)
    camera_filter = camera_filter and query_cameras is not None and gallery_cameras is not None
    nearest = []
    for distances_G, identity, camera in zip(_numpy(distances), *queries, strict=True):
        same_camera_G = (gallery.ids == identity) & (gallery.cameras == camera) & camera_filter
        allowed = np.flatnonzero((gallery.ids != JUNK) & ~same_camera_G)
        nearest.append(allowed[np.argsort(distances_G[allowed], kind="stable")[:count]])
    return nearest


def _evaluate(blocks: Blocks, queries: Labels, gallery: Labels, camera_filter: bool) -> ReidMetrics:
    # pairs of one identity, sorted by distance for each query
    pairs = _pairs_of_same_id(queries, gallery)
    distances_S = _distances_of_pairs(blocks, pairs)
    order = np.lexsort((distances_S, pairs.query))
    query_S, entry_S, distances_S = pairs.query[order], pairs.entry[order], distances_S[order]
    # those that count as matches, and how many non-matches are at or before each of them
    is_match_S = gallery.cameras[entry_S] != queries.cameras[query_S] if camera_filter else np.ones(len(entry_S), bool)
    query_M, distances_M = query_S[is_match_S], distances_S[is_match_S]
    at_or_below_M = _count_at_or_below(blocks, query_M, distances_M, gallery.ids != JUNK)
    nonmatches_M = at_or_below_M - _last_of_equals(query_S, distances_S)[is_match_S]
    return _metrics(nonmatches_M, query_M, len(queries.ids), len(gallery.ids), camera_filter)


def _last_of_equals(query_S: NDArray, distances_S: NDArray) -> NDArray:
    """For each of a query's sorted distances, the number of distances at or below it."""
    starts = np.flatnonzero(np.diff(query_S, prepend=-1))
    changes = (query_S[1:] != query_S[:-1]) | (distances_S[1:] != distances_S[:-1])
    ends = np.append(np.flatnonzero(changes), len(query_S) - 1)
    run = np.concatenate([[0], np.cumsum(changes)])[: len(query_S)]
    first_S = starts[np.cumsum(np.isin(np.arange(len(query_S)), starts)) - 1]
    return ends[run] - first_S + 1


def _metrics(nonmatches_M: NDArray, query_M: NDArray, queries: int, gallery_size: int, camera_filter: bool) -> ReidMetrics:
    """Metrics from the number of non-matches at or before each match; the matches are sorted, query by query."""
    if not len(query_M):
        raise UserError("no query has a match in the gallery; check the identities or use camera_filter=False")
    with_match, first, matches = np.unique(query_M, return_index=True, return_counts=True)
    # rank of each match (from 0), and the precision at it and just before it
    earlier_M = np.arange(len(query_M)) - np.repeat(first, matches)
    rank_M = nonmatches_M + earlier_M
    at_M = (earlier_M + 1) / (rank_M + 1)
    before_M = np.divide(earlier_M, rank_M, out=np.ones(len(rank_M)), where=rank_M > 0)
    first_ranks = np.bincount(rank_M[first], minlength=gallery_size)[: min(CMC_LENGTH, gallery_size)]
    ap_step, ap_trapezoid = (np.add.reduceat(precision, first) / matches for precision in (at_M, (before_M + at_M) / 2))
    return ReidMetrics(
        cmc=np.cumsum(first_ranks) / len(with_match),
        map_step=float(ap_step.mean()),
        map_trapezoid=float(ap_trapezoid.mean()),
        minp=float((matches / (rank_M[first + matches - 1] + 1)).mean()),
        queries=len(with_match),
        queries_without_match=[int(query) for query in np.setdiff1d(np.arange(queries), with_match)],
        camera_filter=camera_filter,
        first_match=rank_M[first] + 1,
        ap_step=ap_step,
        ap_trapezoid=ap_trapezoid,
    )


class Pairs(NamedTuple):
    """All S pairs of a query and a gallery entry of its identity, query by query."""

    query: NDArray  # (S,), index of the query
    entry: NDArray  # (S,), index of the gallery entry


def _pairs_of_same_id(queries: Labels, gallery: Labels) -> Pairs:
    by_identity = np.argsort(gallery.ids, kind="stable")
    first, last = (np.searchsorted(gallery.ids, queries.ids, side, sorter=by_identity) for side in ("left", "right"))
    sizes = np.where(queries.ids == JUNK, 0, last - first)
    query = np.repeat(np.arange(len(queries.ids)), sizes)
    offset = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return Pairs(query, by_identity[first[query] + offset])


def _distances_of_pairs(blocks: Blocks, pairs: Pairs) -> NDArray:
    distances_S: NDArray | None = None
    for start, distances_QB in blocks():
        if np.isnan(distances_QB.sum()) and np.isnan(distances_QB).any():
            raise UserError("some distances are NaN; check the features")
        distances_S = np.empty(len(pairs.entry), distances_QB.dtype) if distances_S is None else distances_S
        inside = np.flatnonzero((pairs.entry >= start) & (pairs.entry < start + distances_QB.shape[1]))
        distances_S[inside] = distances_QB[pairs.query[inside], pairs.entry[inside] - start]
    return np.empty(0) if distances_S is None else distances_S


def _count_at_or_below(blocks: Blocks, query_M: NDArray, threshold_M: NDArray, counted_G: NDArray) -> NDArray:
    """For each threshold, (M,), the number of counted entries in its query's row at or below it; sorted by query."""
    counts_M = np.zeros(len(query_M), np.int64)
    with_match, first = np.unique(query_M, return_index=True)
    own = [slice(start, stop) for start, stop in pairwise([*first, len(query_M)])]
    total = len(with_match)
    shares = [range(start, min(start + QUERIES_AT_ONCE, total)) for start in range(0, total, QUERIES_AT_ONCE)]

    def count(share: range, distances_QB: NDArray, columns: NDArray | slice) -> None:
        for i in share:
            counts_M[own[i]] += _counts(distances_QB[with_match[i], columns], threshold_M[own[i]])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start, distances_QB in blocks():
            counted_B = counted_G[start : start + distances_QB.shape[1]]
            columns = slice(None) if counted_B.all() else np.flatnonzero(counted_B)
            list(pool.map(count, shares, repeat(distances_QB), repeat(columns)))
    return counts_M


def _counts(row_B: NDArray, threshold_M: NDArray) -> NDArray:
    """The number of distances at or below each of the sorted thresholds, (M,)."""
    is_near_B = row_B <= threshold_M[-1]  # distances beyond the last threshold never count
    near = row_B[is_near_B] if 4 * np.count_nonzero(is_near_B) < len(row_B) else row_B
    if len(threshold_M) > SORT_ABOVE_MATCHES:
        return np.searchsorted(np.sort(near), threshold_M, side="right")
    # counting bits 64 at a time, then the bytes that do not fill a word
    bits = np.packbits(near <= threshold_M[:, None], axis=1)
    word_bytes = bits.shape[1] // 8 * 8
    counts_M = np.bitwise_count(bits[:, :word_bytes].view(np.uint64)).sum(1, dtype=np.int64)
    return counts_M + np.bitwise_count(bits[:, word_bytes:]).sum(1, dtype=np.int64)


def _distance_blocks(query_features: Array, gallery_features: Array, measure: Measure) -> Blocks:
    """Blocks of gallery columns: a single one is kept, several are recomputed in each pass, bit-identically."""
    query_QD = finite_tensor(query_features)
    width = max(1, BLOCK_BYTES // (4 * max(1, *query_QD.shape)))
    size = len(gallery_features)  # type: ignore[arg-type]

    def blocks() -> Iterator[tuple[int, NDArray]]:
        for start in range(0, size, width):
            block_BD = finite_tensor(gallery_features[start : start + width])  # type: ignore[index]
            yield start, measure.as_distance(query_QD, block_BD).numpy()

    if size > width:
        return blocks
    single_block = list(blocks())
    return lambda: single_block


def _numpy(values: Array) -> NDArray:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    if values.dtype in (torch.bfloat16, torch.float16):  # NumPy lacks bfloat16
        values = values.float()
    return values.detach().cpu().numpy()


def _labels(
    query_ids: LabelList, query_cameras: LabelList | None, gallery_ids: LabelList, gallery_cameras: LabelList | None
) -> tuple[Labels, Labels]:
    """Identities and cameras of queries and gallery as numbers; without cameras they are all 0."""
    ids = _numbers("ids", query_ids, gallery_ids)
    if query_cameras is None or gallery_cameras is None:
        cameras = (np.zeros(len(ids[0]), np.int64), np.zeros(len(ids[1]), np.int64))
    else:
        cameras = _numbers("cameras", query_cameras, gallery_cameras)
    for what, own_ids, own_cameras in zip(("query", "gallery"), ids, cameras, strict=True):
        if len(own_ids) != len(own_cameras):
            raise UserError(
                f"{what}_ids ({len(own_ids)}) and {what}_cameras ({len(own_cameras)}) must be lists of the same length"
            )
    return Labels(ids[0], cameras[0]), Labels(ids[1], cameras[1])


def _numbers(what: str, query: LabelList, gallery: LabelList) -> tuple[NDArray, NDArray]:
    """Labels as they are if they are whole numbers; otherwise 1, 2, ... in the order in which they occur first."""
    lists = [values if isinstance(values, list | tuple) else list(_numpy(values)) for values in (query, gallery)]  # type: ignore[arg-type]
    labels = [label.item() if isinstance(label, np.generic | Tensor) else label for values in lists for label in values]
    fractions = [label for label in labels if isinstance(label, float)]
    if fractions:
        raise UserError(f"{what} must be whole numbers or names, got {fractions[0]}; use astype(int) if they are whole")
    if any(not isinstance(label, Hashable) for label in labels):
        raise UserError(f"{what} must be one list of labels, got nested lists; give one label per image")
    if all(isinstance(label, int) and abs(label) < 2**63 for label in labels):
        numbers = np.array(labels, np.int64)
    else:
        codes = {label: number for number, label in enumerate(dict.fromkeys(labels), 1)}
        numbers = np.array([codes[label] for label in labels], np.int64)
    return numbers[: len(lists[0])], numbers[len(lists[0]) :]


def _check_size(name: str, features: Array, labels: Labels) -> None:
    shape = tuple(features.shape) if hasattr(features, "shape") else np.shape(features)
    if len(shape) != 2 or shape[0] != len(labels.ids):
        raise UserError(f"{name} must be ({len(labels.ids)}, D), one row per image, got {shape}")
