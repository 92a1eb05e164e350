"""SOSNet's loss (Tian et al. 2019): a squared hinge on the hardest negatives, and second-order similarity."""

import torch
from torch import Tensor, nn

from csametric.distances import unit_euclidean_distances
from csametric.losses.hardnet import DUPLICATE_DISTANCE, EPSILON, MASKED, check_pairs, hardest_negatives

NEIGHBOURS = 8  # nearest neighbours of each thing in the second-order term


def sos_loss(anchors_ND: Tensor, positives_ND: Tensor, margin: float = 1.0, neighbours: int = NEIGHBOURS) -> Tensor:
    """SOSNet's loss: mean(max(0, margin + d_pos - d_neg)^2) + `second_order_similarity`.

    The negative of a pair is the nearest descriptor of another thing to its anchor or its positive, in either set: HardNet's
    two candidates, and those among the anchors and among the positives.

    Args:
        anchors_ND: unit vectors, (N, D), N >= 2.
        positives_ND: unit vectors, (N, D); row i shows the same thing as row i of the anchors, other rows show other things.
        margin: in units of the distance sqrt(2 - 2 a.p + 1e-6).
        neighbours: number of nearest neighbours in the second-order term.

    Returns:
        A scalar, at least 0.

    Raises:
        UserError: the shapes differ, or there are fewer than 2 pairs.

    Examples:
        >>> sos_loss(torch.eye(2), torch.eye(2), margin=2.0)  # (2 + 0.001 - sqrt(2))^2
        tensor(0.3443)
    """
    check_pairs(anchors_ND, positives_ND)
    across_NN, among_anchors_NN, among_positives_NN = (
        unit_euclidean_distances(a, b, EPSILON)
        for a, b in ((anchors_ND, positives_ND), (anchors_ND, anchors_ND), (positives_ND, positives_ND))
    )
    candidates = [
        hardest_negatives(distances_NN, DUPLICATE_DISTANCE)
        for distances_NN in (across_NN, among_anchors_NN, among_positives_NN)
    ]
    negatives_N = torch.stack(candidates).amin(0)
    hinges_N = (margin + across_NN.diagonal() - negatives_N).clamp(min=0)
    return hinges_N.square().mean() + second_order_similarity(among_anchors_NN, among_positives_NN, neighbours)


def second_order_similarity(among_anchors_NN: Tensor, among_positives_NN: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Compare the distances to the nearest neighbours in both sets.

    The mean over i of sqrt(sum_j (d(a_i, a_j) - d(p_i, p_j))^2), where j runs over the `neighbours` nearest neighbours of i in
    either set, without i.

    Args:
        among_anchors_NN: distances between the anchors, (N, N).
        among_positives_NN: distances between the positives, (N, N).
        neighbours: number of nearest neighbours of each row.

    Returns:
        A scalar, at least 0; lower means more similar.

    Examples:
        >>> distances = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> second_order_similarity(distances, 1.5 * distances)
        tensor(0.5000)
    """
    near_NN = _nearest(among_anchors_NN, neighbours) | _nearest(among_positives_NN, neighbours)
    squares_NN = (among_anchors_NN - among_positives_NN).square() * near_NN
    return (squares_NN.sum(1) + EPSILON**2).sqrt().mean()


def _nearest(distances_NN: Tensor, count: int) -> Tensor:
    """Mark the `count` nearest neighbours of each row, without itself; bool (N, N)."""
    others_NN = distances_NN.detach() + MASKED * torch.eye(len(distances_NN), device=distances_NN.device)
    indices = others_NN.topk(min(count, len(others_NN) - 1), largest=False).indices
    return torch.zeros_like(others_NN, dtype=torch.bool).scatter(1, indices, True)


class SecondOrderLoss(nn.Module):
    """`sos_loss` as a module."""

    def __init__(self, margin: float = 1.0, neighbours: int = NEIGHBOURS) -> None:
        super().__init__()
        self.margin, self.neighbours = margin, neighbours

    def forward(self, anchors_ND: Tensor, positives_ND: Tensor) -> Tensor:
        """Compute the loss of pairs, (N, D), (N, D) -> scalar."""
        return sos_loss(anchors_ND, positives_ND, self.margin, self.neighbours)
