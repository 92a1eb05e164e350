"""The batch-hard triplet loss (Hermans et al. 2017)."""

import torch
from torch import Tensor

from csametric.distances import euclidean_distances


def batch_hard_triplet_loss(features_ND: Tensor, ids_N: Tensor, margin: float = 0.3) -> Tensor:
    """Triplet loss with the hardest pairs of the batch: mean(max(0, margin + farthest positive - nearest negative)).

    Args:
        features_ND: vectors of any length, (N, D).
        ids_N: their identities, (N,); at least two, each at least twice.
        margin: in units of the Euclidean distance.

    Returns:
        A scalar in fp32 or better.

    Examples:
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
        >>> batch_hard_triplet_loss(features, torch.tensor([0, 0, 1, 1]), margin=0.0)
        tensor(0.2500)
    """
    distances_NN = euclidean_distances(features_ND, features_ND, epsilon=1e-6)
    same_NN = ids_N[:, None] == ids_N[None, :]
    farthest_N = distances_NN.masked_fill(~same_NN, 0).amax(1)
    nearest_N = distances_NN.masked_fill(same_NN, torch.inf).amin(1)
    return (farthest_N - nearest_N + margin).clamp(min=0).mean()
