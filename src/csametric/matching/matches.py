"""Nearest-neighbour matching of descriptors.

Legend: N, M keypoints of the first and second photograph, D dimensions, R matches.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from csametric.distances import UNIT_EUCLIDEAN

_ROWS_AT_ONCE = 4096


class Matches(NamedTuple):
    """Matches between the keypoints of two photographs."""

    pairs: NDArray  # (R, 2), indices of keypoints, sorted by the first
    distances: NDArray  # (R,), lower is nearer


def match_descriptors(a_ND: NDArray, b_MD: NDArray, mutual: bool = True, ratio: float | None = None) -> Matches:
    """Match each descriptor of the first photograph to its nearest in the second; descriptors are unit vectors.

    Args:
        mutual: keep a match only if each of its keypoints is the other's nearest.
        ratio: keep a match only if its distance is below `ratio` times that of the second nearest in the second photograph
            (Lowe 2004); None keeps all.

    Examples:
        >>> match_descriptors(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[::-1].copy()).pairs.tolist()
        [[0, 1], [1, 0]]
    """
    if not len(a_ND) or not len(b_MD):
        return Matches(np.empty((0, 2), int), np.empty(0, np.float32))
    nearest_N, distances_N, second_N, back_M = _nearest(torch.from_numpy(a_ND), torch.from_numpy(b_MD))
    kept_N = np.ones(len(a_ND), bool)
    if mutual:
        kept_N &= back_M[nearest_N] == np.arange(len(a_ND))
    if ratio is not None:
        kept_N &= distances_N < ratio * second_N
    first = np.flatnonzero(kept_N)
    return Matches(np.stack([first, nearest_N[first]], 1), distances_N[first])


def _nearest(a_ND: torch.Tensor, b_MD: torch.Tensor) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Nearest neighbours in both directions, computed in blocks of rows.

    Returns:
        for each a, (N,): the index of its nearest b, that distance, and the second smallest distance (inf if M is 1); for
        each b, (M,): the index of its nearest a.
    """
    nearest, distances, seconds = [], [], []
    best_M, back_M = torch.full((len(b_MD),), torch.inf), torch.zeros(len(b_MD), dtype=torch.long)
    for start in range(0, len(a_ND), _ROWS_AT_ONCE):
        block_nM = UNIT_EUCLIDEAN.as_distance(a_ND[start : start + _ROWS_AT_ONCE], b_MD)
        two_nearest = block_nM.topk(min(2, len(b_MD)), largest=False)
        nearest.append(two_nearest.indices[:, 0])
        distances.append(two_nearest.values[:, 0])
        seconds.append(two_nearest.values[:, 1] if len(b_MD) > 1 else torch.full((len(block_nM),), torch.inf))
        # the nearest a of each b over the blocks so far; among equals the first stays
        lowest_M, row_M = block_nM.min(0)
        back_M = torch.where(lowest_M < best_M, row_M + start, back_M)
        best_M = torch.minimum(best_M, lowest_M)
    return torch.cat(nearest).numpy(), torch.cat(distances).numpy(), torch.cat(seconds).numpy(), back_M.numpy()
