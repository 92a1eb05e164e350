"""The triplet loss with the hardest positive and negative of the batch (Hermans et al. 2017)."""

import torch
from torch import Tensor

from csametric.distances import euclidean_distances


def batch_hard_triplet_loss(features_ND: Tensor, ids_N: Tensor, margin: float = 0.3) -> Tensor:
    """Mean over anchors of max(0, margin + farthest positive - nearest negative), a scalar in fp32.

    Args:
        features_ND: any length, (N, D). ids_N: (N,); every identity at least twice and at least two of them.
    """
    distances_NN = euclidean_distances(features_ND, features_ND, epsilon=1e-6)
    same_NN = ids_N[:, None] == ids_N[None, :]
    farthest_N = distances_NN.masked_fill(~same_NN, 0).amax(1)
    nearest_N = distances_NN.masked_fill(same_NN, torch.inf).amin(1)
    return (farthest_N - nearest_N + margin).clamp(min=0).mean()
