"""Input normalisation of an attention layer, z = (x - mean) / deviation, folded into its 1x1 convolutions."""

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor, nn

from csametric.attention.tracing import is_eager, is_recomputing

REMEMBERED_FORWARDS = 16


class Statistics(NamedTuple):
    """What one forward normalises its input with, constant for the gradient."""

    mean: Tensor  # (C,)
    deviation: Tensor  # (C,), positive


class _Forward(NamedTuple):
    fingerprint: Tensor  # (N, C), the input at the central position, by which a repetition of the forward is recognised
    statistics: Statistics


class ForwardMemory:
    """The statistics of recent training forwards, which a forward repeated by activation checkpointing uses again."""

    def __init__(self) -> None:
        self._forwards: deque[_Forward] = deque(maxlen=REMEMBERED_FORWARDS)

    def __reduce__(self) -> tuple[type["ForwardMemory"], tuple[()]]:
        return ForwardMemory, ()  # copies and pickles of a layer begin without memories

    def remember(self, x_NCHW: Tensor, statistics: Statistics) -> None:
        """Remember what a forward was normalised with."""
        self._forwards.append(_Forward(_fingerprint(x_NCHW).clone(), statistics))

    def recall(self, x_NCHW: Tensor) -> Statistics | None:
        """The statistics of the remembered forward with the most similar input; None without one of the same size."""
        fingerprint_NC = _fingerprint(x_NCHW)
        candidates = [forward for forward in self._forwards if forward.fingerprint.shape == fingerprint_NC.shape]
        if not candidates:
            return None
        differences = torch.stack([(forward.fingerprint - fingerprint_NC).abs().sum() for forward in candidates])
        nearest = differences.argmin().view(1)  # stays on the device
        parts = zip(*(forward.statistics for forward in candidates), strict=True)
        return Statistics(*(torch.stack(part).index_select(0, nearest).squeeze(0) for part in parts))


def input_norm(channels: int, used: bool) -> nn.BatchNorm2d | None:
    """Running means and variances of a layer's input, without parameters; None if not used."""
    return nn.BatchNorm2d(channels, affine=False) if used else None


def observe(norm: nn.BatchNorm2d | None, memory: ForwardMemory, x_NCHW: Tensor) -> Statistics | None:
    """The statistics to normalise an input with: the running ones, as they were before this forward updates them.

    They are copies, so a second forward before the backward does not change the statistics in the first one's backward. A
    forward that activation checkpointing repeats gets the statistics of the first time and moves nothing.

    Args:
        norm: None if the layer has no normalisation.
        memory: of the same layer.
        x_NCHW: the layer's input.
    """
    if norm is None:
        return None
    statistics = running_statistics(norm)
    if not norm.training:
        return statistics
    if is_recomputing():
        return memory.recall(x_NCHW) or statistics
    with torch.no_grad():
        norm(x_NCHW)
    if is_eager() and x_NCHW.numel():
        memory.remember(x_NCHW, statistics)
    return statistics


def running_statistics(norm: nn.BatchNorm2d) -> Statistics:
    """Copies of the running mean and deviation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return Statistics(norm.running_mean.clone(), (norm.running_var + norm.eps).sqrt())


def subtract_mean(x_NCHW: Tensor, statistics: Statistics | None) -> tuple[Tensor, Statistics | None]:
    """In 16-bit types subtract the mean from the input itself; otherwise both are returned unchanged.

    Folding a large mean into the weights would lose precision: logits and means of X are rounded before it cancels. The mean is
    rounded to the type of the input, and the statistics that are returned hold the rest of it.
    """
    if statistics is None or x_NCHW.dtype not in (torch.bfloat16, torch.float16):
        return x_NCHW, statistics
    rounded_C = statistics.mean.to(x_NCHW.dtype)
    rest_C = statistics.mean - rounded_C.to(statistics.mean.dtype)
    return x_NCHW - rounded_C.view(-1, 1, 1), statistics._replace(mean=rest_C)


def fold_norm(
    weight: Tensor, bias: Tensor | None, groups: int, statistics: Statistics | None, in_units_of_input: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias that apply a 1x1 convolution of (x - mean) / deviation to x itself.

    Every implementation of the layer takes these instead of its own weight and bias, and stays exact.

    Args:
        weight, bias: of the convolution, (O, C/groups, 1, 1) and (O,).
        groups: of the convolution.
        statistics: None leaves weight and bias as they are.
        in_units_of_input: whether each of the C outputs is multiplied by its channel's deviation.
    """
    if statistics is None:
        return weight, bias
    deviation_C = statistics.deviation
    per_group = (groups, 1, -1, 1, 1)
    weight_Grc11 = weight.unflatten(0, (groups, -1)) / deviation_C.view(per_group)
    shift = -(weight_Grc11 * statistics.mean.view(per_group)).sum((2, 3, 4)).flatten()
    folded, bias = weight_Grc11.flatten(0, 1), shift if bias is None else bias + shift
    return (folded * deviation_C.view(-1, 1, 1, 1), bias * deviation_C) if in_units_of_input else (folded, bias)


def _fingerprint(x_NCHW: Tensor) -> Tensor:
    return x_NCHW.detach()[:, :, x_NCHW.shape[2] // 2, x_NCHW.shape[3] // 2]
