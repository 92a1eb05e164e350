"""The products of size c x D in the hand-written backward: what lies between its two passes over the feature map.

Legend: G groups of c channels, N images, D maps per group, K = N*D columns (the D maps of every image, image after image).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class ElementaryGradients(NamedTuple):
    """alpha E of the forward again, and the gradients that need no feature map."""

    elementary: Tensor  # alpha E, (G, c, K)
    means: Tensor  # dU, (G, c, K)
    value_weight: Tensor  # (C, c, 1, 1)
    value_bias: Tensor  # (C,)
    alpha: Tensor  # ()


def elementary_gradients(
    output_grad_GcK: Tensor, means_GcK: Tensor, value_weight: Tensor, value_bias: Tensor | None, alpha: Tensor
) -> ElementaryGradients:
    """From dO W^T and U = X B^T, all of one type: dE = alpha dO W^T, dU = Wg^T dE, dWg = dE U^T."""
    weight_Gcc = group_matrices(value_weight, means_GcK.shape[0])
    outputs_GcK = elementary_outputs(means_GcK, weight_Gcc, value_bias)
    grad_GcK = alpha * output_grad_GcK
    return ElementaryGradients(
        elementary=alpha * outputs_GcK,
        means=torch.bmm(weight_Gcc.transpose(1, 2), grad_GcK),
        value_weight=torch.bmm(grad_GcK, means_GcK.transpose(1, 2)).reshape(value_weight.shape),
        value_bias=grad_GcK.sum(2).flatten(),
        alpha=(output_grad_GcK * outputs_GcK).sum(),
    )


def elementary_outputs(means_GcK: Tensor, weight_Gcc: Tensor, value_bias: Tensor | None) -> Tensor:
    """E = Wg U + bg, (G, c, K), without alpha."""
    outputs_GcK = torch.bmm(weight_Gcc, means_GcK)
    return outputs_GcK if value_bias is None else outputs_GcK + value_bias.view(weight_Gcc.shape[0], -1, 1)


def join_images(per_image_NGcD: Tensor) -> Tensor:
    """(N, G, c, D) -> (G, c, K), so that a weight is read once for all images."""
    return per_image_NGcD.permute(1, 2, 0, 3).flatten(2)


def split_images(joined_GcK: Tensor, images: int) -> Tensor:
    """(G, c, K) -> (N, G, c, D), a view."""
    return joined_GcK.unflatten(2, (images, -1)).permute(2, 0, 1, 3)


def group_matrices(weight: Tensor, groups: int) -> Tensor:
    """The weight of a grouped 1x1 convolution as one matrix per group, (G, rows, c)."""
    return weight.reshape(groups, weight.shape[0] // groups, -1)
