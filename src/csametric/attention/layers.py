"""The layers: compressed self-attention, and self-attention beside it."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from csametric.attention import dispatch, reference
from csametric.attention.normalization import folded, input_norm, observe
from csametric.attention.reference import AttentionMaps
from csametric.errors import UserError

MakeLayer = Callable[[int], nn.Module]


class CompressedSelfAttention(nn.Module):
    """Compressed self-attention (CSA), grouped and exact: (N, C, H, W) -> (N, C, H, W).

    O = X + alpha E W, equation (7) of "Compressed Self-Attention for Deep Metric Learning" (Chen et al., AAAI 2020).
    The output has the input's type, device and memory format, under autocast too.

    Args:
        channels: C, divisible by `groups`.
        maps: D, the base attention maps of each group, at least 1.
        groups: G; every group of C/G channels attends with weights of its own.
        alpha: the weight of the attended features at the start; 0 leaves a pretrained network as it was.
        learn_alpha: whether alpha is a parameter or a buffer.
        bias: whether the two 1x1 convolutions carry biases; the paper's equations have none.
        norm: whether the layer works on each channel normalised by its running mean and deviation, and returns to the input's
            units. Ours, not the paper's: in front of pretrained weights the maps may have any scale (docs/decisions/0007). It
            costs nothing at inference.
        backend: "auto", or a path by name: "reference", "reordered" or "fused".

    Attributes:
        last_path: which path ran the last forward; "" before the first one.
        last_reason: why that path ran.

    Raises:
        UserError: channels not divisible by groups, maps below 1, or a backend that cannot run.
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
            raise UserError(f"channels={channels} cannot be split into groups={groups}; choose a divisor of the channels")
        if maps < 1:
            raise UserError(f"maps={maps} leaves nothing to attend with; use 1 or more")
        dispatch.check_backend(backend)
        self.channels, self.maps, self.groups, self.backend = channels, maps, groups, backend
        self.logits = nn.Conv2d(channels, groups * maps, 1, groups=groups, bias=bias)
        self.value = nn.Conv2d(channels, channels, 1, groups=groups, bias=bias)
        self.norm = input_norm(channels, norm)
        _register_alpha(self, alpha, learn_alpha)
        self.last_path, self.last_reason = "", ""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W), equation (7)."""
        _check_input(x_NCHW, self.channels)
        observe(self.norm, x_NCHW)
        self.last_path, self.last_reason = dispatch.choose_path(self.backend, x_NCHW, self.maps)
        logit_weight, logit_bias = folded(self.logits, self.norm)
        value_weight, value_bias = folded(self.value, self.norm, in_units_of_input=True)
        return dispatch.compressed_self_attention(
            self.last_path, x_NCHW, logit_weight, value_weight, self.alpha, logit_bias, value_bias, self.groups
        )

    def attention(self, x_NCHW: Tensor) -> AttentionMaps:
        """The base maps and adaptive weights for an input of (N, C, H, W), each (N, G, D, H, W), equations (3), (4)."""
        _check_input(x_NCHW, self.channels)
        weight, bias = folded(self.logits, self.norm)
        bias = None if bias is None else bias.to(x_NCHW.dtype)
        with reference.without_autocast(x_NCHW):
            return reference.attention_maps(x_NCHW, weight.to(x_NCHW.dtype), bias, self.groups)

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
            raise UserError(f"channels={channels} cannot be reduced by {reduction}; choose a divisor of the channels")
        self.channels, self.reduction = channels, reduction
        self.query = nn.Conv2d(channels, channels // reduction, 1, bias=bias)
        self.key = nn.Conv2d(channels, channels // reduction, 1, bias=bias)
        self.value = nn.Conv2d(channels, channels, 1, bias=bias)
        self.norm = input_norm(channels, norm)
        _register_alpha(self, alpha, learn_alpha)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        _check_input(x_NCHW, self.channels)
        observe(self.norm, x_NCHW)
        with reference.without_autocast(x_NCHW):
            query, key = (self._project(x_NCHW, *folded(conv, self.norm)) for conv in (self.query, self.key))
            value = self._project(x_NCHW, *folded(self.value, self.norm, in_units_of_input=True))
            attended_NCP = reference.self_attention(query, key, value)
            attended_NCHW = attended_NCP.unflatten(2, x_NCHW.shape[2:])
            return x_NCHW + self.alpha.to(x_NCHW.dtype) * attended_NCHW

    @staticmethod
    def _project(x_NCHW: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        bias = None if bias is None else bias.to(x_NCHW.dtype)
        return nn.functional.conv2d(x_NCHW, weight.to(x_NCHW.dtype), bias).flatten(2)

    def extra_repr(self) -> str:
        """What `print` shows beside the convolutions."""
        return f"reduction={self.reduction}"


def attention_maker(
    attention: str | MakeLayer | None,
    maps: int,
    groups: int,
    alpha: float = 0.0,
    norm: bool = False,
    learn_alpha: bool = True,
) -> MakeLayer | None:
    """What makes a layer of a number of channels: of "sa" or "csa" with these settings, of a name of `peers.PEERS`.

    A callable and None come back as they are.

    Raises:
        UserError: an unknown name.
    """
    if attention is None or callable(attention):
        return attention
    makers: dict[str, MakeLayer] = {
        "sa": partial(SelfAttention, alpha=alpha, learn_alpha=learn_alpha, norm=norm),
        "csa": partial(CompressedSelfAttention, maps=maps, groups=groups, alpha=alpha, learn_alpha=learn_alpha, norm=norm),
    }
    if attention in makers:
        return makers[attention]
    from csametric.attention.peers import PEERS

    if attention not in PEERS:
        raise UserError(
            f"attention={attention!r} is unknown; use None, 'sa', 'csa', {', '.join(map(repr, PEERS))} or a callable"
        )
    return PEERS[attention]


def _register_alpha(layer: nn.Module, alpha: float, learn: bool) -> None:
    if learn:
        layer.alpha = nn.Parameter(torch.tensor(float(alpha)))
    else:
        layer.register_buffer("alpha", torch.tensor(float(alpha)))


def _check_input(x_NCHW: Tensor, channels: int) -> None:
    if x_NCHW.dim() != 4 or x_NCHW.shape[1] != channels:
        raise ValueError(f"the layer takes (N, {channels}, H, W), got {tuple(x_NCHW.shape)}")
