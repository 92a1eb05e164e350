"""The layers: compressed self-attention, and self-attention beside it."""

from collections.abc import Callable

import torch
import torch.fx
from torch import Tensor, nn

from csametric.attention import dispatch, reference
from csametric.attention.convolution import weight_and_bias
from csametric.attention.normalization import (
    ForwardMemory,
    Statistics,
    fold_norm,
    input_norm,
    observe,
    running_statistics,
    subtract_mean,
)
from csametric.attention.reference import AttentionMaps, CSAWeights
from csametric.attention.tracing import is_recorded
from csametric.errors import UserError

MakeLayer = Callable[[int], nn.Module]


class CompressedSelfAttention(nn.Module):
    """Compressed self-attention (CSA), grouped and exact: (N, C, H, W) -> (N, C, H, W).

    O = X + alpha E W, equation (7) of "Compressed Self-Attention for Deep Metric Learning" (Chen et al., AAAI 2020).
    The output has the input's type, device and memory format, under autocast too.

    Args:
        channels: C, divisible by `groups`.
        maps: D, the base attention maps of each group, at least 1.
        groups: G; each group of C/G channels has its own attention weights.
        alpha: the initial weight of the attended features; 0 leaves a pretrained network unchanged.
        learn_alpha: True makes alpha a parameter, False a buffer.
        bias: True gives the two 1x1 convolutions biases; the paper's equations have none.
        norm: True normalises each input channel by its running mean and deviation, and scales the result back to the input's
            units. Ours, not the paper's: in a pretrained network, features can have any scale (docs/decisions/0007). It
            costs nothing at inference in fp32, and two passes over the input in 16-bit types.
        backend: "auto", or a path by name: "reference", "reordered" or "fused".

    Attributes:
        last_path: which path ran the last forward, "reference", "reordered" or "fused"; "" before the first one.
        last_form: which form of that path ran, a key of `attention.dispatch.FORMS`.
        last_reason: why that path ran.

    Raises:
        UserError: channels not divisible by groups, maps below 1, or a backend that cannot run.

    Examples:
        >>> layer = CompressedSelfAttention(channels=64, maps=8, groups=2)
        >>> layer(torch.zeros(2, 64, 24, 8)).shape
        torch.Size([2, 64, 24, 8])
        >>> layer.last_path
        'reordered'
    """

    alpha: Tensor

    def __init__(
        self,
        channels: int,
        maps: int = 32,
        groups: int = 2,
        alpha: float = 0.0,
        learn_alpha: bool = True,
        bias: bool = False,
        backend: dispatch.Backend = "auto",
        norm: bool = False,
    ) -> None:
        super().__init__()
        if groups < 1 or channels % groups:
            raise UserError(f"channels must be a multiple of groups, got channels={channels} and groups={groups}")
        if maps < 1:
            raise UserError(f"maps must be at least 1, got {maps}")
        dispatch.check_backend(backend)
        self.channels, self.maps, self.groups, self.backend = channels, maps, groups, backend
        self.logits = nn.Conv2d(channels, groups * maps, 1, groups=groups, bias=bias)
        self.value = nn.Conv2d(channels, channels, 1, groups=groups, bias=bias)
        self.norm, self._memory = input_norm(channels, norm), ForwardMemory()
        _register_alpha(self, alpha, learn_alpha)
        self.last_path, self.last_form, self.last_reason = "", "", ""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W), equation (7)."""
        return _forward(self, x_NCHW)

    def _run(self, x_NCHW: Tensor) -> Tensor:
        centred_NCHW, statistics = subtract_mean(x_NCHW, observe(self.norm, self._memory, x_NCHW))
        self.last_path, self.last_form, self.last_reason = dispatch.choose_path(self.backend, centred_NCHW, self.maps)
        out_NCHW = dispatch.compressed_self_attention(self.last_form, centred_NCHW, self._weights(statistics))
        if centred_NCHW is x_NCHW:
            return out_NCHW
        return x_NCHW + (out_NCHW - centred_NCHW)  # exactly x where alpha is 0

    def attention(self, x_NCHW: Tensor) -> AttentionMaps:
        """The base maps and adaptive weights for an input of (N, C, H, W), each (N, G, D, H, W), equations (3), (4)."""
        _check_input(x_NCHW, self.channels)
        statistics = None if self.norm is None else running_statistics(self.norm)
        centred_NCHW, statistics = subtract_mean(x_NCHW, statistics)
        weights = self._weights(statistics).to(x_NCHW.dtype)
        with reference.without_autocast(x_NCHW):
            return reference.attention_maps(centred_NCHW, weights.logit_weight, weights.logit_bias, self.groups)

    def _weights(self, statistics: Statistics | None) -> CSAWeights:
        """The weights as the paths take them, with the mean and deviation of the input folded in."""
        logits, value = (weight_and_bias(part, self.channels, self.groups) for part in (self.logits, self.value))
        logit_weight, logit_bias = fold_norm(*logits, self.groups, statistics)
        value_weight, value_bias = fold_norm(*value, self.groups, statistics, in_units_of_input=True)
        return CSAWeights(logit_weight, value_weight, self.alpha, logit_bias, value_bias, self.groups)

    def extra_repr(self) -> str:
        """What `print` shows beside the convolutions."""
        return f"maps={self.maps}, groups={self.groups}, backend={self.backend!r}"


class SelfAttention(nn.Module):
    """Self-attention (SA) with a residual, (N, C, H, W) -> (N, C, H, W): equations (1) and (2).

    O = X + alpha V A^T, where A_ij is a softmax over j of q_i . k_j, without the 1/sqrt(d) of transformers. The residual
    and alpha are ours, so that SA and CSA are exchangeable. Time and memory grow with the square of H*W.

    Args:
        channels: C, divisible by `reduction`.
        reduction: queries and keys have C/reduction dimensions.
        alpha, learn_alpha, bias, norm: as in `CompressedSelfAttention`.

    Raises:
        UserError: channels not divisible by the reduction.

    Examples:
        >>> SelfAttention(channels=64)(torch.zeros(2, 64, 24, 8)).shape
        torch.Size([2, 64, 24, 8])
    """

    alpha: Tensor

    def __init__(
        self,
        channels: int,
        reduction: int = 8,
        alpha: float = 0.0,
        learn_alpha: bool = True,
        bias: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__()
        if reduction < 1 or channels % reduction:
            raise UserError(f"channels must be a multiple of reduction, got channels={channels} and reduction={reduction}")
        self.channels, self.reduction = channels, reduction
        self.query = nn.Conv2d(channels, channels // reduction, 1, bias=bias)
        self.key = nn.Conv2d(channels, channels // reduction, 1, bias=bias)
        self.value = nn.Conv2d(channels, channels, 1, bias=bias)
        self.norm, self._memory = input_norm(channels, norm), ForwardMemory()
        _register_alpha(self, alpha, learn_alpha)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return _forward(self, x_NCHW)

    def _run(self, x_NCHW: Tensor) -> Tensor:
        centred_NCHW, statistics = subtract_mean(x_NCHW, observe(self.norm, self._memory, x_NCHW))
        with reference.without_autocast(x_NCHW):
            convolutions = (self.query, self.key, self.value)
            query, key, value = (weight_and_bias(part, self.channels, groups=1) for part in convolutions)
            query_NKP, key_NKP = (_project(centred_NCHW, *fold_norm(*part, 1, statistics)) for part in (query, key))
            value_NCP = _project(centred_NCHW, *fold_norm(*value, 1, statistics, in_units_of_input=True))
            attended_NCP = reference.self_attention(query_NKP, key_NKP, value_NCP)
            attended_NCHW = attended_NCP.unflatten(2, x_NCHW.shape[2:])
            return x_NCHW + self.alpha.to(x_NCHW.dtype) * attended_NCHW

    def extra_repr(self) -> str:
        """What `print` shows beside the convolutions."""
        return f"reduction={self.reduction}"


@torch.fx.wrap
def _forward(layer: CompressedSelfAttention | SelfAttention, x_NCHW: Tensor) -> Tensor:
    """A layer's forward as a function that symbolic tracing records as one call, so that shapes and paths stay dynamic."""
    _check_input(x_NCHW, layer.channels)
    return layer._run(x_NCHW)


def _project(x_NCHW: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    bias = None if bias is None else bias.to(x_NCHW.dtype)
    return nn.functional.conv2d(x_NCHW, weight.to(x_NCHW.dtype), bias).flatten(2)


def _register_alpha(layer: nn.Module, alpha: float, learn: bool) -> None:
    if learn:
        layer.alpha = nn.Parameter(torch.tensor(float(alpha)))
    else:
        layer.register_buffer("alpha", torch.tensor(float(alpha)))


def _check_input(x_NCHW: Tensor, channels: int) -> None:
    if x_NCHW.dim() != 4 or (not is_recorded() and x_NCHW.shape[1] != channels):
        raise ValueError(f"the layer takes (N, {channels}, H, W), got {tuple(x_NCHW.shape)}")
