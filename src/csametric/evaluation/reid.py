"""Re-identification metrics: CMC, average precision in both forms of the field, mINP; single query.

Conventions. Gallery entries of identity -1 (junk) are dropped, those of 0 (distractors) stay. For each query, entries of its
identity and its camera are dropped too, unless the camera filter is off. Among equal distances non-matches rank first, so
that nothing depends on the order of the gallery. Queries left without a match count in no mean and are named.

Legend: Q queries, G gallery entries, D dimensions, M matches of a query.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from csametric.distances import MEASURES, Measure
from csametric.errors import UserError
from csametric.evaluation.rerank import k_reciprocal_distances

JUNK = -1
CMC_LENGTH = 1000
BLOCK_BYTES = 256 << 20  # of distances at a time
MANY = 64  # matches of one query from which on sorting the row is faster than counting once a match

Array = ArrayLike | Tensor
Blocks = Callable[[], Iterable[tuple[int, NDArray]]]


@dataclass(frozen=True, kw_only=True)
class ReidMetrics:
    """Means over the queries that have a match; all in [0, 1].

    cmc: the share of queries whose first match is among the first k, at index k - 1, up to k = 1000 or the gallery's size.
    map_step: average precision as the mean of the precision at each match (torchreid, fast-reid).
    map_trapezoid: as the mean of the precisions before and at each match (the official Matlab code, PCB's tables).
    minp: matches over the rank of the last one (Ye et al. 2021).
    queries: how many had a match. queries_without_match: the indices of those that had none.
    """

    cmc: NDArray
    map_step: float
    map_trapezoid: float
    minp: float
    queries: int
    queries_without_match: list[int]

    def rank(self, k: int) -> float:
        """The CMC at rank k, from 1 on."""
        if k < 1:
            raise UserError(f"rank {k} is no rank; ranks begin at 1")
        return float(self.cmc[min(k, len(self.cmc)) - 1])


class Labels(NamedTuple):
    """Identities and cameras, int64."""

    ids: NDArray
    cameras: NDArray


def evaluate_reid(
    query_features: Array,
    query_ids: Array,
    query_cameras: Array,
    gallery_features: Array,
    gallery_ids: Array,
    gallery_cameras: Array,
    distance: str = "euclidean",
    camera_filter: bool = True,
    rerank: bool = False,
) -> ReidMetrics:
    """Metrics of features, (Q, D) and (G, D); a gallery memory-mapped from disk is read in blocks, twice.

    Args:
        distance: "euclidean" or "cosine".
        camera_filter: whether entries of the query's identity and camera are dropped; off for one-camera data.
        rerank: k-reciprocal re-ranking first (Zhong et al. 2017, Euclidean); it needs the memory of a few (Q+G)^2 floats.

    Raises:
        UserError: sizes that do not agree, an unknown distance, features that are not finite, or no query with a match.
    """
    if distance not in MEASURES:
        raise UserError(f"distance={distance!r} is unknown; use one of {', '.join(MEASURES)}")
    queries, gallery = _labels(query_ids, query_cameras, "query"), _labels(gallery_ids, gallery_cameras, "gallery")
    _check_size("query_features", query_features, queries)
    _check_size("gallery_features", gallery_features, gallery)
    if rerank:
        distances_QG = k_reciprocal_distances(query_features, gallery_features)
        return _evaluate(lambda: [(0, distances_QG)], queries, gallery, camera_filter)
    return _evaluate(_distance_blocks(query_features, gallery_features, MEASURES[distance]), queries, gallery, camera_filter)


def evaluate_distances(
    distances: Array,
    query_ids: Array,
    query_cameras: Array,
    gallery_ids: Array,
    gallery_cameras: Array,
    camera_filter: bool = True,
) -> ReidMetrics:
    """The same from distances (Q, G); lower is nearer.

    Raises:
        UserError: sizes that do not agree, distances that are not numbers, or no query with a match.
    """
    queries, gallery = _labels(query_ids, query_cameras, "query"), _labels(gallery_ids, gallery_cameras, "gallery")
    distances_QG = _numpy(distances)
    if distances_QG.shape != (len(queries.ids), len(gallery.ids)):
        raise UserError(
            f"the distances are {distances_QG.shape} for {len(queries.ids)} queries and {len(gallery.ids)} gallery entries; "
            "give a row a query and a column an entry"
        )
    return _evaluate(lambda: [(0, distances_QG)], queries, gallery, camera_filter)


def nearest_entries(
    query_features: Array,
    query_ids: Array,
    query_cameras: Array,
    gallery_features: Array,
    gallery_ids: Array,
    gallery_cameras: Array,
    count: int = 10,
    camera_filter: bool = True,
) -> list[NDArray]:
    """The nearest gallery entries of each query by Euclidean distance, at most `count`, nearest first, junk left out.

    With the camera filter, entries of the query's identity and camera are left out too.
    """
    queries, gallery = _labels(query_ids, query_cameras, "query"), _labels(gallery_ids, gallery_cameras, "gallery")
    distances_QG = MEASURES["euclidean"].as_distance(_tensor(query_features), _tensor(gallery_features)).numpy()
    found = []
    for distances_G, identity, camera in zip(distances_QG, *queries, strict=True):
        same_camera_G = (gallery.ids == identity) & (gallery.cameras == camera) & camera_filter
        allowed = np.flatnonzero((gallery.ids != JUNK) & ~same_camera_G)
        found.append(allowed[np.argsort(distances_G[allowed], kind="stable")[:count]])
    return found


def _evaluate(blocks: Blocks, queries: Labels, gallery: Labels, camera_filter: bool) -> ReidMetrics:
    members = _members(gallery.ids)
    hits = [_is_hit(queries, gallery, query, members, camera_filter) for query in range(len(queries.ids))]
    of_same_id = _distances_of_same_id(blocks, queries, members)
    matches = [np.sort(distances[hit]) for distances, hit in zip(of_same_id, hits, strict=True)]
    closer = _count_at_or_below(blocks, matches, gallery.ids != JUNK)
    strangers = [
        all_M - np.searchsorted(np.sort(same), match_M, side="right")
        for all_M, same, match_M in zip(closer, of_same_id, matches, strict=True)
    ]
    return _metrics(strangers, len(gallery.ids))


def _metrics(strangers: Sequence[NDArray], gallery_size: int) -> ReidMetrics:
    """From the number of non-matches at or before each match of each query, matches in order."""
    with_match = [strangers_M for strangers_M in strangers if len(strangers_M)]
    if not with_match:
        raise UserError("no query has a match in the gallery; check the identities, or switch the camera filter off")
    first = np.array([strangers_M[0] for strangers_M in with_match])
    found = np.bincount(first, minlength=gallery_size)[: min(CMC_LENGTH, gallery_size)]
    precisions = [_average_precisions(strangers_M) for strangers_M in with_match]
    return ReidMetrics(
        cmc=np.cumsum(found) / len(with_match),
        map_step=float(np.mean([step for step, _ in precisions])),
        map_trapezoid=float(np.mean([trapezoid for _, trapezoid in precisions])),
        minp=float(np.mean([len(each) / (each[-1] + len(each)) for each in with_match])),
        queries=len(with_match),
        queries_without_match=[query for query, strangers_M in enumerate(strangers) if not len(strangers_M)],
    )


def _average_precisions(strangers_M: NDArray) -> tuple[float, float]:
    earlier_M = np.arange(len(strangers_M))
    rank_M = strangers_M + earlier_M
    at_M = (earlier_M + 1) / (rank_M + 1)
    before_M = np.divide(earlier_M, rank_M, out=np.ones(len(rank_M)), where=rank_M > 0)
    return float(at_M.mean()), float(((before_M + at_M) / 2).mean())


def _members(ids_G: NDArray) -> dict[int, NDArray]:
    """The gallery entries of each identity, junk left out."""
    order = np.argsort(ids_G, kind="stable")
    identities, starts = np.unique(ids_G[order], return_index=True)
    groups = np.split(order, starts[1:])
    return {int(identity): group for identity, group in zip(identities, groups, strict=True) if identity != JUNK}


def _is_hit(queries: Labels, gallery: Labels, query: int, members: dict[int, NDArray], camera_filter: bool) -> NDArray:
    """Of the gallery entries of a query's identity, which are matches."""
    same = members.get(int(queries.ids[query]), np.empty(0, np.int64))
    return gallery.cameras[same] != queries.cameras[query] if camera_filter else np.ones(len(same), bool)


def _distances_of_same_id(blocks: Blocks, queries: Labels, members: dict[int, NDArray]) -> list[NDArray]:
    found: list[list[NDArray]] = [[] for _ in queries.ids]
    for start, distances_QB in blocks():
        if np.isnan(distances_QB.sum()) and np.isnan(distances_QB).any():
            raise UserError("some distances are not numbers (NaN); check the features")
        for query, identity in enumerate(queries.ids):
            same = members.get(int(identity), np.empty(0, np.int64))
            first, last = np.searchsorted(same, (start, start + distances_QB.shape[1]))
            found[query].append(distances_QB[query, same[first:last] - start])
    return [np.concatenate(each) for each in found]


def _count_at_or_below(blocks: Blocks, thresholds: Sequence[NDArray], counted_G: NDArray) -> list[NDArray]:
    """How many counted entries of each query's row are at or below each of its thresholds."""
    counts = [np.zeros(len(each), np.int64) for each in thresholds]
    for start, distances_QB in blocks():
        counted_B = counted_G[start : start + distances_QB.shape[1]]
        columns = None if counted_B.all() else np.flatnonzero(counted_B)
        for row_B, threshold_M, count_M in zip(distances_QB, thresholds, counts, strict=True):
            if len(threshold_M):
                count_M += _counts(row_B if columns is None else row_B[columns], threshold_M)
    return counts


def _counts(row_B: NDArray, threshold_M: NDArray) -> NDArray:
    near = row_B[row_B <= threshold_M[-1]]
    if len(threshold_M) > MANY:
        return np.searchsorted(np.sort(near), threshold_M, side="right")
    return np.array([np.count_nonzero(near <= threshold) for threshold in threshold_M])


def _distance_blocks(query_features: Array, gallery_features: Array, measure: Measure) -> Blocks:
    """Blocks of gallery columns; a single one is computed once, several anew at each pass (the same products, bit by bit)."""
    query_QD = _tensor(query_features)
    width = max(1, BLOCK_BYTES // (4 * max(1, len(query_QD))))
    size = len(gallery_features)  # type: ignore[arg-type]

    def blocks() -> Iterator[tuple[int, NDArray]]:
        for start in range(0, size, width):
            yield start, measure.as_distance(query_QD, _tensor(gallery_features, start, start + width)).numpy()

    kept = list(blocks()) if size <= width else None
    return blocks if kept is None else lambda: kept


def _tensor(features: Array, start: int | None = None, stop: int | None = None) -> Tensor:
    part = features[start:stop]  # type: ignore[index]
    tensor = part.detach().cpu() if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
    tensor = tensor.float()
    if not tensor.isfinite().all():
        raise UserError("some features are NaN or infinite; check the model that made them")
    return tensor


def _numpy(values: Array) -> NDArray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _labels(ids: Array, cameras: Array, what: str) -> Labels:
    labels = Labels(_numpy(ids).astype(np.int64), _numpy(cameras).astype(np.int64))
    if labels.ids.ndim != 1 or labels.ids.shape != labels.cameras.shape:
        raise UserError(
            f"{what}_ids {labels.ids.shape} and {what}_cameras {labels.cameras.shape} must be lists of equal length"
        )
    return labels


def _check_size(name: str, features: Array, labels: Labels) -> None:
    shape = tuple(features.shape) if hasattr(features, "shape") else np.shape(features)
    if len(shape) != 2 or shape[0] != len(labels.ids):
        raise UserError(f"{name} are {shape} for {len(labels.ids)} identities; give (N, D), a row an identity")
