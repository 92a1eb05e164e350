"""Equations (1) to (7) of the paper as written: the oracle that the faster paths are compared with.

Legend: N images, C channels, H x W = P positions, G channel groups of c = C/G, D base attention maps per group.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional


def softmax_at_least_fp32(logits: Tensor, dim: int) -> Tensor:
    """Softmax computed in fp32 or better, returned in the type of its input."""
    return logits.softmax(dim, dtype=torch.promote_types(logits.dtype, torch.float32)).to(logits.dtype)


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """A context with autocast off for the device of `x`, whatever that device is."""
    device = x.device.type
    # every device that torch.compile supports has autocast, and PyTorch 2.11 cannot trace is_autocast_available()
    has_autocast = torch.compiler.is_compiling() or torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if has_autocast else nullcontext()


class CSAWeights(NamedTuple):
    """The weights of one compressed self-attention layer: two grouped 1x1 convolutions and alpha.

    Group g owns the rows g*D..(g+1)*D of the logits and g*c..(g+1)*c of the values.
    """

    logit_weight: Tensor  # (G*D, c, 1, 1), the base vectors
    value_weight: Tensor  # (C, c, 1, 1)
    alpha: Tensor  # (), the weight of the attended features
    logit_bias: Tensor | None = None  # (G*D,)
    value_bias: Tensor | None = None  # (C,)
    groups: int = 1  # G

    def to(self, dtype: torch.dtype) -> Self:
        """The same weights in another floating-point type."""
        cast = [field.to(dtype) if isinstance(field, Tensor) else field for field in self]
        return type(self)(*cast)  # type: ignore[arg-type]


class AttentionMaps(NamedTuple):
    """What a compressed self-attention layer looks at, for N images and G groups of D maps.

    Examples:
        >>> from csametric import CompressedSelfAttention
        >>> maps = CompressedSelfAttention(channels=8, maps=4).attention(torch.zeros(1, 8, 6, 5))
        >>> maps.base.shape, maps.at(y=3, x=2).shape
        (torch.Size([1, 2, 4, 6, 5]), torch.Size([1, 2, 6, 5]))
    """

    base: Tensor  # (N, G, D, H, W), the base attention maps of equation (3); each sums to 1 over H, W
    weights: Tensor  # (N, G, D, H, W), the adaptive weights of equation (4); they sum to 1 over D at every position

    def at(self, y: int, x: int) -> Tensor:
        """The reconstructed attention map of position (y, x), (N, G, H, W), equation (4); it sums to 1 over H, W.

        Raises:
            IndexError: the position lies outside the map.
        """
        height, width = self.base.shape[-2:]
        if not (0 <= y < height and 0 <= x < width):
            raise IndexError(f"position (y={y}, x={x}) lies outside the {height} x {width} map")
        return torch.einsum("ngdhw,ngd->nghw", self.base, self.weights[..., y, x])


def attention_maps(x_NCHW: Tensor, logit_weight: Tensor, logit_bias: Tensor | None, groups: int) -> AttentionMaps:
    """Base attention maps and adaptive weights, equations (3) and (4), each (N, G, D, H, W)."""
    logits_NGDP = functional.conv2d(x_NCHW, logit_weight, logit_bias, groups=groups).unflatten(1, (groups, -1)).flatten(3)
    positions = x_NCHW.shape[-2:]
    return AttentionMaps(
        base=softmax_at_least_fp32(logits_NGDP, -1).unflatten(-1, positions),
        weights=softmax_at_least_fp32(logits_NGDP, 2).unflatten(-1, positions),
    )


def compressed_self_attention(x_NCHW: Tensor, weights: CSAWeights) -> Tensor:
    """O = X + alpha (V B^T) W in the paper's own order, (N, C, H, W): steps (i) to (vii), equations (3) to (7)."""
    groups = weights.groups
    maps = attention_maps(x_NCHW, weights.logit_weight, weights.logit_bias, groups)
    base_NGDP, weights_NGDP = maps.base.flatten(3), maps.weights.flatten(3)
    values_NCHW = functional.conv2d(x_NCHW, weights.value_weight, weights.value_bias, groups=groups)
    values_NGcP = values_NCHW.unflatten(1, (groups, -1)).flatten(3)
    elementary_NGcD = values_NGcP @ base_NGDP.transpose(-1, -2)
    attended_NGcP = elementary_NGcD @ weights_NGDP
    return x_NCHW + weights.alpha * attended_NGcP.reshape(x_NCHW.shape)


def self_attention(query_NKP: Tensor, key_NKP: Tensor, value_NCP: Tensor) -> Tensor:
    """Plain self-attention of P positions, (N, C, P), equations (1) and (2): softmax over j of q_i . k_j, not scaled."""
    attention_NPP = softmax_at_least_fp32(query_NKP.transpose(1, 2) @ key_NKP, -1)
    return value_NCP @ attention_NPP.transpose(1, 2)
