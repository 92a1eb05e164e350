"""HardNet's loss (Mishchuk et al. 2017) and its hardest-in-batch mining, which RALNet and SOSNet share."""

import torch
from torch import Tensor, nn

from csametric.distances import unit_euclidean_distances
from csametric.errors import UserError

EPSILON = 1e-6  # under the root of the distance
DUPLICATE_DISTANCE = 0.008  # closer descriptors are assumed to show the same thing
MASKED = 10.0  # added to a distance to exclude it from a minimum


def hardnet_loss(anchors_ND: Tensor, positives_ND: Tensor, margin: float = 1.0) -> Tensor:
    """Triplet margin loss with the hardest negative of the batch for each pair: mean(max(0, margin + d_pos - d_neg)).

    Args:
        anchors_ND: unit vectors, (N, D), N >= 2.
        positives_ND: unit vectors, (N, D); row i shows the same thing as row i of the anchors, other rows show other things.
        margin: in units of the distance sqrt(2 - 2 a.p + 1e-6), which lies in [0.001, 2].

    Returns:
        A scalar, at least 0.

    Raises:
        UserError: the shapes differ, or there are fewer than 2 pairs.

    Examples:
        >>> hardnet_loss(torch.eye(2), torch.eye(2), margin=2.0)  # 2 + 0.001 - sqrt(2)
        tensor(0.5868)
    """
    check_pairs(anchors_ND, positives_ND)
    distances_NN = unit_euclidean_distances(anchors_ND, positives_ND, EPSILON)
    negatives_N = hardest_negatives(distances_NN, DUPLICATE_DISTANCE)
    return (margin + distances_NN.diagonal() - negatives_N).clamp(min=0).mean()


def hardest_negatives(distances_NN: Tensor, duplicate_below: float) -> Tensor:
    """Find the distance of the hardest negative of each pair: the smallest in its row or column, off the diagonal.

    Args:
        distances_NN: from anchors (rows) to positives (columns), (N, N).
        duplicate_below: smaller distances are assumed to belong to views of the same thing and are excluded.

    Returns:
        (N,).

    Examples:
        >>> hardest_negatives(torch.tensor([[0.1, 0.9], [0.3, 0.2]]), duplicate_below=0.008)
        tensor([0.3000, 0.3000])
    """
    excluded_NN = torch.eye(len(distances_NN), dtype=torch.bool, device=distances_NN.device)
    excluded_NN = excluded_NN | (distances_NN < duplicate_below)
    negatives_NN = torch.where(excluded_NN, distances_NN + MASKED, distances_NN)
    return torch.minimum(negatives_NN.amin(1), negatives_NN.amin(0))


def check_pairs(anchors_ND: Tensor, positives_ND: Tensor) -> None:
    """Check the shapes of pairs of descriptors.

    Raises:
        UserError: the shapes are not both (N, D), or there are fewer than 2 pairs.
    """
    if anchors_ND.shape != positives_ND.shape or anchors_ND.dim() != 2:
        shapes = f"{tuple(anchors_ND.shape)} and {tuple(positives_ND.shape)}"
        raise UserError(f"anchors and positives must share one shape (N, D), got {shapes}")
    if len(anchors_ND) < 2:
        raise UserError(f"need at least 2 pairs to find negatives in the batch, got {len(anchors_ND)}; use a larger batch")


class HardNetLoss(nn.Module):
    """`hardnet_loss` as a module."""

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, anchors_ND: Tensor, positives_ND: Tensor) -> Tensor:
        """Compute the loss of pairs, (N, D), (N, D) -> scalar."""
        return hardnet_loss(anchors_ND, positives_ND, self.margin)
