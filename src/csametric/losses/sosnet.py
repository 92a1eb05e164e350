"""SOSNet's loss (Tian et al. 2019): a squared hinge on the hardest negatives, and second-order similarity."""

import torch
from torch import Tensor, nn

from csametric.distances import unit_euclidean_distances
from csametric.losses.hardnet import DUPLICATE_DISTANCE, EPSILON, MASKED, check_pairs, hardest_negatives

NEIGHBOURS = 8


def sos_loss(anchors_ND: Tensor, positives_ND: Tensor, margin: float = 1.0, neighbours: int = NEIGHBOURS) -> Tensor:
    """mean(max(0, margin + d_pos - d_neg)^2) + `second_order_similarity`; a scalar >= 0.

    The negative of a pair is the nearest descriptor of another thing to its anchor or its positive, in either set: HardNet's
    two candidates, and those within the anchors and within the positives.

    Args:
        anchors_ND, positives_ND: (N, D) unit vectors, N >= 2; row i of both shows the same thing, other rows others.
        margin: in units of the distance sqrt(2 - 2 a.p + 1e-6).
        neighbours: how many of the nearest of each thing take part in the second-order term.

    Raises:
        UserError: shapes differ, or fewer than two pairs.
    """
    check_pairs(anchors_ND, positives_ND)
    across_NN, among_anchors_NN, among_positives_NN = (
        unit_euclidean_distances(a, b, EPSILON)
        for a, b in ((anchors_ND, positives_ND), (anchors_ND, anchors_ND), (positives_ND, positives_ND))
    )
    negatives_N = torch.stack(
        [hardest_negatives(each, DUPLICATE_DISTANCE) for each in (across_NN, among_anchors_NN, among_positives_NN)]
    ).amin(0)
    hinges_N = (margin + across_NN.diagonal() - negatives_N).clamp(min=0)
    return hinges_N.square().mean() + second_order_similarity(among_anchors_NN, among_positives_NN, neighbours)


def second_order_similarity(among_anchors_NN: Tensor, among_positives_NN: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """How differently both sets see the same neighbours, a scalar >= 0.

    The mean over i of sqrt(sum_j (d(a_i, a_j) - d(p_i, p_j))^2), where j runs over those that are among the `neighbours`
    nearest of i in either set, without i.

    Args:
        among_anchors_NN, among_positives_NN: distances within each set, (N, N).
    """
    near_NN = _nearest(among_anchors_NN, neighbours) | _nearest(among_positives_NN, neighbours)
    squares_NN = (among_anchors_NN - among_positives_NN).square() * near_NN
    return (squares_NN.sum(1) + EPSILON**2).sqrt().mean()


def _nearest(distances_NN: Tensor, count: int) -> Tensor:
    """Which are among the `count` nearest of each row, without itself, (N, N)."""
    others_NN = distances_NN.detach() + MASKED * torch.eye(len(distances_NN), device=distances_NN.device)
    chosen = others_NN.topk(min(count, len(others_NN) - 1), largest=False).indices
    return torch.zeros_like(others_NN, dtype=torch.bool).scatter(1, chosen, True)


class SecondOrderLoss(nn.Module):
    """`sos_loss` as a module."""

    def __init__(self, margin: float = 1.0, neighbours: int = NEIGHBOURS) -> None:
        super().__init__()
        self.margin, self.neighbours = margin, neighbours

    def forward(self, anchors_ND: Tensor, positives_ND: Tensor) -> Tensor:
        """(N, D), (N, D) -> scalar."""
        return sos_loss(anchors_ND, positives_ND, self.margin, self.neighbours)
