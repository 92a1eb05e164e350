"""Which keypoints of two photographs belong together. Legend: N, M keypoints, D dimensions, R matches."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from csametric.distances import UNIT_EUCLIDEAN

_ROWS_AT_ONCE = 4096


class Matches(NamedTuple):
    """pairs: (R, 2), numbers of keypoints, by rising first. distances: (R,), lower is nearer."""

    pairs: NDArray
    distances: NDArray


def match_descriptors(a_ND: NDArray, b_MD: NDArray, mutual: bool = True, ratio: float | None = None) -> Matches:
    """Nearest neighbours among unit vectors.

    Args:
        mutual: keep a pair only where each is the other's nearest.
        ratio: keep it only where the nearest is nearer than `ratio` times the second nearest of the first photograph's
            keypoint (Lowe 2004); None keeps all.
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
    """Of each a its nearest b, that distance, the second smallest (inf without one); of each b its nearest a. By blocks."""
    nearest, distances, seconds = [], [], []
    best_M, back_M = torch.full((len(b_MD),), torch.inf), torch.zeros(len(b_MD), dtype=torch.long)
    for start in range(0, len(a_ND), _ROWS_AT_ONCE):
        block_nM = UNIT_EUCLIDEAN.as_distance(a_ND[start : start + _ROWS_AT_ONCE], b_MD)
        two = block_nM.topk(min(2, len(b_MD)), largest=False)
        nearest.append(two.indices[:, 0])
        distances.append(two.values[:, 0])
        seconds.append(two.values[:, 1] if len(b_MD) > 1 else torch.full((len(block_nM),), torch.inf))
        lowest_M, row_M = block_nM.min(0)
        back_M = torch.where(lowest_M < best_M, row_M + start, back_M)
        best_M = torch.minimum(best_M, lowest_M)
    return torch.cat(nearest).numpy(), torch.cat(distances).numpy(), torch.cat(seconds).numpy(), back_M.numpy()
