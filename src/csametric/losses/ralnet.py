"""RALNet's robust angular loss (Xu et al. 2019)."""

from torch import Tensor, nn

from csametric.distances import angular_distances
from csametric.losses.hardnet import DUPLICATE_DISTANCE, check_pairs, hardest_negatives


def ral_loss(anchors_ND: Tensor, positives_ND: Tensor) -> Tensor:
    """Robust angular loss with HardNet's mining: mean(1 + tanh(d_pos - d_neg)), where d = 2 (1 - cosine).

    Args:
        anchors_ND: unit vectors, (N, D), N >= 2.
        positives_ND: unit vectors, (N, D); row i shows the same thing as row i of the anchors, other rows show other things.

    Returns:
        A scalar in (0, 2).

    Raises:
        UserError: the shapes differ, or there are fewer than 2 pairs.

    Examples:
        >>> import torch
        >>> ral_loss(torch.eye(2), torch.eye(2))  # 1 + tanh(-2)
        tensor(0.0360)
    """
    check_pairs(anchors_ND, positives_ND)
    distances_NN = angular_distances(anchors_ND, positives_ND)
    negatives_N = hardest_negatives(distances_NN, DUPLICATE_DISTANCE**2)
    return (1 + (distances_NN.diagonal() - negatives_N).tanh()).mean()


class RobustAngularLoss(nn.Module):
    """`ral_loss` as a module."""

    def forward(self, anchors_ND: Tensor, positives_ND: Tensor) -> Tensor:
        """Compute the loss of pairs, (N, D), (N, D) -> scalar."""
        return ral_loss(anchors_ND, positives_ND)
