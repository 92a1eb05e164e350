"""k-reciprocal re-ranking (Zhong et al. 2017) with sparse matrices: memory grows with the number of neighbours."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from csametric.distances import squared_euclidean_distances
from csametric.errors import UserError
from csametric.evaluation.features import Array, finite_tensor

BLOCK_ROWS = 512

Rows = Callable[[int, int], NDArray]  # (start, stop) -> squared distances of these rows to all, (B, N)


def k_reciprocal_distances(
    query_features: Array,
    gallery_features: Array,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> NDArray:
    """Re-ranked distances of features (Q, D) and (G, D), float32 (Q, G) in about [0, 1]; lower is nearer.

    d* = (1 - lambda) Jaccard distance of the k-reciprocal neighbours + lambda times the squared Euclidean distance divided by
    the query's largest. Peak memory is a few times (Q, G) plus the sparse neighbours, never (Q+G)^2.

    Args:
        k1: the number of neighbours that may be reciprocal.
        k2: the number of neighbours whose encodings are averaged.
        lambda_value: weight of the original distance, in [0, 1].

    Raises:
        UserError: features of different dimensions or not finite, or parameters out of range.

    Examples:
        >>> int(k_reciprocal_distances(np.eye(4)[:1], np.eye(4), k1=2, k2=1).argmin())
        0
    """
    query_QD, gallery_GD = finite_tensor(query_features), finite_tensor(gallery_features)
    if query_QD.shape[1:] != gallery_GD.shape[1:]:
        raise UserError(
            "query and gallery features must have the same dimensions, "
            f"got {tuple(query_QD.shape)} and {tuple(gallery_GD.shape)}"
        )
    all_ND = torch.cat([query_QD, gallery_GD])

    def rows(start: int, stop: int) -> NDArray:
        return squared_euclidean_distances(all_ND[start:stop], all_ND).numpy()

    return _rerank(rows, len(all_ND), len(query_QD), k1, k2, lambda_value)


def rerank_distances(distances_NN: NDArray, queries: int, k1: int = 20, k2: int = 6, lambda_value: float = 0.3) -> NDArray:
    """Re-rank from all squared distances, symmetric (N, N), queries first; returns float32 (Q, N - Q)."""
    return _rerank(lambda start, stop: distances_NN[start:stop], len(distances_NN), queries, k1, k2, lambda_value)


def _rerank(rows: Rows, size: int, queries: int, k1: int, k2: int, lambda_value: float) -> NDArray:
    if not (1 <= k2 <= k1 and 0 <= lambda_value <= 1):
        raise UserError(f"re-ranking needs 1 <= k2 <= k1 and lambda_value in [0, 1], got {k1=}, {k2=}, {lambda_value=}")
    if k1 >= size:
        raise UserError(
            f"re-ranking with k1={k1} needs at least {k1 + 1} images, query and gallery together, got {size}; evaluate without "
            "re-ranking, or call k_reciprocal_distances with a smaller k1"
        )
    # neighbours, their reciprocal sets, the sets as weights, and the average over the nearest k2
    neighbours_NK = _neighbours(rows, size, k1 + 1)
    members = _expanded_reciprocal(neighbours_NK, k1)
    encoding, original_QG = _encode(rows, members, queries)
    if k2 > 1:
        encoding = (_adjacency(neighbours_NK[:, :k2]) @ encoding).tocsr() / np.float32(k2)
    return (1 - lambda_value) * _jaccard_distances(encoding[:queries], encoding[queries:]) + lambda_value * original_QG


def _neighbours(rows: Rows, size: int, count: int) -> NDArray:
    """Indices of the nearest entries of every row, the row itself included, in order: (N, count)."""
    blocks = []
    for start in range(0, size, BLOCK_ROWS):
        distances_BN = rows(start, start + BLOCK_ROWS)
        nearest = np.argpartition(distances_BN, count - 1, axis=1)[:, :count]
        order = np.argsort(np.take_along_axis(distances_BN, nearest, 1), axis=1, kind="stable")
        blocks.append(np.take_along_axis(nearest, order, 1))
    return np.concatenate(blocks)


def _adjacency(neighbours_NK: NDArray) -> sparse.csr_matrix:
    size, count = neighbours_NK.shape
    starts = np.arange(0, size * count + 1, count)
    return sparse.csr_matrix((np.ones(size * count, np.float32), neighbours_NK.ravel(), starts), shape=(size, size))


def _reciprocal(neighbours_NK: NDArray) -> sparse.csr_matrix:
    """R(i, k): 1 if each of two entries is among the k nearest of the other."""
    nearest = _adjacency(neighbours_NK)
    return nearest.multiply(nearest.T).tocsr()


def _expanded_reciprocal(neighbours_NK: NDArray, k1: int) -> sparse.csr_matrix:
    """R*(i, k1): R(i, k1), and R(c, k1/2) of each member c for which more than two thirds of it lie in R(i, k1)."""
    reciprocal = _reciprocal(neighbours_NK)
    half = _reciprocal(neighbours_NK[:, : int(np.around(k1 / 2)) + 1])
    shared = (reciprocal @ half.T).multiply(reciprocal).tocoo()
    accepted = shared.data > 2 / 3 * np.asarray(half.sum(1)).ravel()[shared.col]
    joining = sparse.csr_matrix((np.ones(accepted.sum(), np.float32), (shared.row[accepted], shared.col[accepted])), half.shape)
    return (reciprocal + joining @ half).tocsr()


def _encode(rows: Rows, members: sparse.csr_matrix, queries: int) -> tuple[sparse.csr_matrix, NDArray]:
    """Encode the members of each row by weights exp(-d) that sum to 1; d is divided by the largest of its row.

    Returns:
        the weights, sparse (N, N), and d from the queries to the gallery, (Q, G).
    """
    size = members.shape[0]
    encoding, original_QG = members.copy(), np.empty((queries, size - queries), np.float32)
    for start in range(0, size, BLOCK_ROWS):
        distances_BN = rows(start, start + BLOCK_ROWS)
        farthest_B = distances_BN.max(1)
        if not farthest_B.all():
            raise UserError("all features are the same, so re-ranking has nothing to order; check the model and the images")
        distances_BN = distances_BN / farthest_B[:, None]
        for row, distances_N in enumerate(distances_BN, start):
            own = slice(members.indptr[row], members.indptr[row + 1])
            weights = np.exp(-distances_N[members.indices[own]])
            encoding.data[own] = weights / weights.sum()
            if row < queries:
                original_QG[row] = distances_N[queries:]
    return encoding, original_QG


def _jaccard_distances(query: sparse.csr_matrix, gallery: sparse.csr_matrix) -> NDArray:
    """Jaccard distances, 1 - (sum of minima) / (sum of maxima); rows sum to 1, so the maxima sum to 2 minus the minima."""
    columns = gallery.tocsc()
    distances_QG = np.empty((query.shape[0], gallery.shape[0]), np.float32)
    for row in range(query.shape[0]):
        own = slice(query.indptr[row], query.indptr[row + 1])
        # positions in `columns` of all gallery weights that share a member with this query
        starts, stops = columns.indptr[query.indices[own]], columns.indptr[query.indices[own] + 1]
        lengths = stops - starts
        positions = np.arange(lengths.sum()) + np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        minima = np.minimum(columns.data[positions], np.repeat(query.data[own], lengths))
        shared = np.bincount(columns.indices[positions], minima, minlength=gallery.shape[0])
        distances_QG[row] = 1 - shared / (2 - shared)
    return distances_QG
