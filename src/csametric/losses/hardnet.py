"""HardNet's loss (Mishchuk et al. 2017) and its hardest-in-batch mining, which RALNet shares."""

import torch
from torch import Tensor, nn

from csametric.distances import unit_euclidean_distances
from csametric.errors import UserError

EPSILON = 1e-6
DUPLICATE_DISTANCE = 0.008
MASKED = 10.0


def hardnet_loss(anchors_ND: Tensor, positives_ND: Tensor, margin: float = 1.0) -> Tensor:
    """mean(max(0, margin + d_pos - d_neg)) with the hardest negative of the batch for each pair; a scalar >= 0.

    Args:
        anchors_ND, positives_ND: (N, D) unit vectors, N >= 2; row i of both shows the same thing, other rows others.
        margin: in units of the distance sqrt(2 - 2 a.p + 1e-6), which lies in [0.001, 2].

    Raises:
        UserError: shapes differ, or fewer than two pairs.
    """
    check_pairs(anchors_ND, positives_ND)
    distances_NN = unit_euclidean_distances(anchors_ND, positives_ND, EPSILON)
    negatives_N = hardest_negatives(distances_NN, DUPLICATE_DISTANCE)
    return (margin + distances_NN.diagonal() - negatives_N).clamp(min=0).mean()


def hardest_negatives(distances_NN: Tensor, duplicate_below: float) -> Tensor:
    """For each pair the smallest distance off the diagonal in its row or its column (the anchor swap), (N,).

    Distances below `duplicate_below` are taken for further views of the same thing and left out.
    """
    left_out = torch.eye(len(distances_NN), dtype=torch.bool, device=distances_NN.device)
    left_out = left_out | (distances_NN < duplicate_below)
    negatives_NN = torch.where(left_out, distances_NN + MASKED, distances_NN)
    return torch.minimum(negatives_NN.amin(1), negatives_NN.amin(0))


def check_pairs(anchors_ND: Tensor, positives_ND: Tensor) -> None:
    """Raises `UserError` unless both are (N, D) with N >= 2."""
    if anchors_ND.shape != positives_ND.shape or anchors_ND.dim() != 2:
        shapes = f"{tuple(anchors_ND.shape)} and {tuple(positives_ND.shape)}"
        raise UserError(f"anchors and positives must share one shape (N, D), got {shapes}")
    if len(anchors_ND) < 2:
        raise UserError("one pair has no negative in its batch; use a batch of at least two pairs")


class HardNetLoss(nn.Module):
    """`hardnet_loss` as a module."""

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, anchors_ND: Tensor, positives_ND: Tensor) -> Tensor:
        """(N, D), (N, D) -> scalar."""
        return hardnet_loss(anchors_ND, positives_ND, self.margin)
