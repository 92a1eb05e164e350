"""RALNet's robust angular loss (Xu et al. 2019)."""

from torch import Tensor, nn

from csametric.distances import angular_distances
from csametric.losses.hardnet import DUPLICATE_DISTANCE, check_pairs, hardest_negatives


def ral_loss(anchors_ND: Tensor, positives_ND: Tensor) -> Tensor:
    """mean(1 + tanh(d_pos - d_neg)), d = 2(1 - cosine), HardNet's mining; a scalar in (0, 2).

    Args:
        anchors_ND, positives_ND: (N, D) unit vectors, N >= 2; row i of both shows the same thing, other rows others.

    Raises:
        UserError: shapes differ, or fewer than two pairs.
    """
    check_pairs(anchors_ND, positives_ND)
    distances_NN = angular_distances(anchors_ND, positives_ND)
    negatives_N = hardest_negatives(distances_NN, DUPLICATE_DISTANCE**2)
    return (1 + (distances_NN.diagonal() - negatives_N).tanh()).mean()


class RobustAngularLoss(nn.Module):
    """`ral_loss` as a module."""

    def forward(self, anchors_ND: Tensor, positives_ND: Tensor) -> Tensor:
        """(N, D), (N, D) -> scalar."""
        return ral_loss(anchors_ND, positives_ND)
