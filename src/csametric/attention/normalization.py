"""Input normalisation of an attention layer, z = (x - mean) / deviation, folded into its 1x1 convolutions."""

import torch
from torch import Tensor, nn


def input_norm(channels: int, used: bool) -> nn.BatchNorm2d | None:
    """Running means and variances of a layer's input, without parameters; None if not used."""
    return nn.BatchNorm2d(channels, affine=False) if used else None


def observe(norm: nn.BatchNorm2d | None, x_NCHW: Tensor) -> None:
    """In training, move the running mean and variance towards those of the batch."""
    if norm is not None and norm.training:
        with torch.no_grad():
            norm(x_NCHW)


def fold_norm(
    convolution: nn.Conv2d, norm: nn.BatchNorm2d | None, in_units_of_input: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias that apply a 1x1 convolution of (x - mean) / deviation to x itself.

    Mean and deviation are the running ones, in training too, and constant for the gradient: on every path the layer is the
    exact layer with other weights. With `in_units_of_input`, each of the C outputs is multiplied by its channel's deviation.
    """
    if norm is None:
        return convolution.weight, convolution.bias
    assert norm.running_mean is not None
    assert norm.running_var is not None
    deviation_C = (norm.running_var + norm.eps).sqrt()
    per_group = (convolution.groups, 1, -1, 1, 1)
    weight_Grc11 = convolution.weight.unflatten(0, (convolution.groups, -1)) / deviation_C.view(per_group)
    shift = -(weight_Grc11 * norm.running_mean.view(per_group)).sum((2, 3, 4)).flatten()
    weight, bias = weight_Grc11.flatten(0, 1), shift if convolution.bias is None else convolution.bias + shift
    return (weight * deviation_C.view(-1, 1, 1, 1), bias * deviation_C) if in_units_of_input else (weight, bias)
