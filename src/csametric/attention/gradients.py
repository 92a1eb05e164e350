"""The products of c x D in the hand-written backward: what lies between its two passes over the feature map.

Legend: N images, G groups of c channels, D maps a group.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class ElementaryGradients(NamedTuple):
    """Of a forward: alpha E again, and the gradients that need no feature map.

    elementary: alpha E, (N, G, c, D). means: dU, (N, G, c, D). delta: sum over channels of dU * U, (N, G, D), so that the
    softmax over positions needs no further pass. value_weight: (C, c, 1, 1). value_bias: (C,). alpha: ().
    """

    elementary: Tensor
    means: Tensor
    delta: Tensor
    value_weight: Tensor
    value_bias: Tensor
    alpha: Tensor


def elementary_gradients(
    incoming_NGcD: Tensor, means_NGcD: Tensor, value_weight: Tensor, value_bias: Tensor | None, alpha: Tensor
) -> ElementaryGradients:
    """From dO W^T and U = X B^T, both (N, G, c, D), all of one type: dE = alpha dO W^T, dU = Wg^T dE, dWg = dE U^T."""
    groups, per_group = means_NGcD.shape[1:3]
    weight_Gcc = value_weight.reshape(groups, per_group, per_group)
    outputs_NGcD = weight_Gcc @ means_NGcD
    if value_bias is not None:
        outputs_NGcD = outputs_NGcD + value_bias.reshape(groups, per_group, 1)
    elementary_gradient = alpha * incoming_NGcD
    mean_gradient = weight_Gcc.transpose(1, 2) @ elementary_gradient
    return ElementaryGradients(
        elementary=alpha * outputs_NGcD,
        means=mean_gradient,
        delta=(mean_gradient * means_NGcD).sum(2),
        value_weight=torch.einsum("ngcd,ngkd->gck", elementary_gradient, means_NGcD).reshape(value_weight.shape),
        value_bias=elementary_gradient.sum((0, 3)).flatten(),
        alpha=(incoming_NGcD * outputs_NGcD).sum(),
    )
