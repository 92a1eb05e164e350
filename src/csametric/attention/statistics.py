"""Numbers that tell a healthy attention layer from a collapsed one.

Legend: N images, G groups, D maps per group, P = H*W positions.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from csametric.attention.reference import AttentionMaps


@dataclass(frozen=True, kw_only=True)
class AttentionStatistics:
    """Statistics of one layer's maps, averaged over images and groups."""

    entropy: float  # of the base maps over positions, in [0, 1]: 1 if all maps are uniform, 0 if each is a single position
    overlap: float  # mean cosine of two different base maps, in [0, 1]: 1 if all are the same map; nan with a single map
    used_maps: float  # how many maps carry the weights, in [1, D]: the exponential of the entropy of their mean weights
    usage: Tensor  # (G, D), the mean weight of each map; each row sums to 1


def attention_statistics(maps: AttentionMaps) -> AttentionStatistics:
    """Statistics of a layer's maps, as `CompressedSelfAttention.attention` returns them.

    Examples:
        >>> even = torch.full((1, 1, 2, 4, 4), 1 / 16)
        >>> statistics = attention_statistics(AttentionMaps(base=even, weights=torch.full_like(even, 0.5)))
        >>> round(statistics.entropy, 3), round(statistics.overlap, 3), round(statistics.used_maps, 3)
        (1.0, 1.0, 2.0)
    """
    base_NGDP = maps.base.detach().float().flatten(3)
    weights_NGDP = maps.weights.detach().float().flatten(3)
    count, positions = base_NGDP.shape[2:]
    usage_GD = weights_NGDP.mean((0, 3))
    return AttentionStatistics(
        entropy=float(_entropy(base_NGDP, 3).mean() / math.log(positions)) if positions > 1 else 0.0,
        overlap=_overlap(base_NGDP) if count > 1 else math.nan,
        used_maps=float(_entropy(usage_GD, 1).exp().mean()),
        usage=usage_GD,
    )


def cosines_to_base_maps(maps: AttentionMaps) -> Tensor:
    """The cosine of each position's reconstructed map to each base map, (N, G, D, H, W), in [0, 1].

    Where the largest cosine is 1, a reconstructed map is a base map again: the redundancy that the paper's Figure 5 shows.
    """
    base_NGDP, weights_NGDP = maps.base.float().flatten(3), maps.weights.float().flatten(3)
    unit_NGDP = normalize(base_NGDP, dim=3)
    gram_NGDD = base_NGDP @ base_NGDP.transpose(2, 3)
    lengths_NG1P = (weights_NGDP * (gram_NGDD @ weights_NGDP)).sum(2, keepdim=True).clamp(min=0).sqrt()
    products_NGDP = unit_NGDP @ base_NGDP.transpose(2, 3) @ weights_NGDP
    return (products_NGDP / lengths_NG1P).unflatten(3, maps.base.shape[3:])


def _entropy(shares: Tensor, dim: int) -> Tensor:
    return torch.special.entr(shares).sum(dim)


def _overlap(base_NGDP: Tensor) -> float:
    unit_NGDP = normalize(base_NGDP, dim=3)
    count = base_NGDP.shape[2]
    cosines_NGDD = unit_NGDP @ unit_NGDP.transpose(2, 3)
    off_NG = (cosines_NGDD.sum((2, 3)) - cosines_NGDD.diagonal(dim1=2, dim2=3).sum(2)) / (count * (count - 1))
    return float(off_NG.mean())
