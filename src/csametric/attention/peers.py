"""Other layers of global context to compare with: each takes and returns (N, C, H, W) and adds to its input.

Widths are the published defaults. Layers that are the identity at first have a weight of zero, as published. Under autocast
they run in the types that PyTorch chooses; their sums over positions are as exact as its operators.

Legend: N images, C channels, P = H*W positions, K a layer's own number of maps, bases or keys.
"""

import torch
from timm.layers.global_context import GlobalContext
from timm.layers.non_local_attn import NonLocalAttn
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn
from torch.nn import functional

from csametric.attention.layers import SelfAttention
from csametric.errors import UserError


def non_local(channels: int) -> nn.Module:
    """The embedded Gaussian non-local block of C/2 dimensions (Wang et al., CVPR 2018, equations 1, 4, 6); from timm."""
    return NonLocalAttn(channels, use_scale=False, rd_ratio=0.5, rd_divisor=1)  # type: ignore[no-untyped-call]


def position_attention(channels: int) -> nn.Module:
    """The position attention module (DANet, Fu et al., CVPR 2019): queries and keys of C/8 dimensions, with biases."""
    return SelfAttention(channels, bias=True)


def global_context(channels: int) -> nn.Module:
    """The GC block with a bottleneck of C/16 (Cao et al., ICCV 2019 workshops): one map for all positions; from timm.

    It starts as the identity, as published; timm leaves the bias of its last convolution random.
    """
    block = GlobalContext(channels, fuse_add=True, fuse_scale=False, rd_ratio=1 / 16)
    nn.init.zeros_(block.mlp_add.fc2.bias)  # type: ignore[arg-type]
    return block


def squeeze_excitation(channels: int) -> nn.Module:
    """Squeeze-and-excitation with a bottleneck of C/16 (Hu et al., CVPR 2018): channels weighted; from timm."""
    return SEModule(channels, rd_ratio=1 / 16, rd_divisor=1)


class EfficientAttention(nn.Module):
    """Efficient attention (Shen et al., WACV 2021, equation 5): O = X + W (softmax_K(Q) (softmax_P(K)^T V)), one head.

    CSA with two separate logit maps in place of one. keys: dimensions of queries and keys; values have C/2.
    """

    def __init__(self, channels: int, keys: int = 64) -> None:
        super().__init__()
        self.query, self.key = nn.Conv2d(channels, keys, 1), nn.Conv2d(channels, keys, 1)
        self.value, self.project = nn.Conv2d(channels, channels // 2, 1), nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        query, key, value = (convolution(x_NCHW).flatten(2) for convolution in (self.query, self.key, self.value))
        context = value @ key.softmax(2).transpose(1, 2)
        return x_NCHW + self.project((context @ query.softmax(1)).unflatten(2, x_NCHW.shape[2:]))


class DoubleAttention(nn.Module):
    """The A2 block (Chen et al., NeurIPS 2018, equations 2 to 5): gathered by C/4 maps, distributed by C/4 others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.feature, self.gather, self.distribute = (nn.Conv2d(channels, channels // 4, 1) for _ in range(3))
        self.extend = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        feature, gather, share = (conv(x_NCHW).flatten(2) for conv in (self.feature, self.gather, self.distribute))
        gathered = feature @ gather.softmax(2).transpose(1, 2)
        return x_NCHW + self.extend((gathered @ share.softmax(1)).unflatten(2, x_NCHW.shape[2:]))


class MultiHeadAttention(nn.Module):
    """Multi-head attention (Vaswani et al., NeurIPS 2017) by `scaled_dot_product_attention`, with a residual."""

    def __init__(self, channels: int, heads: int = 4, dimensions: int = 64) -> None:
        super().__init__()
        self.heads, width = heads, heads * dimensions
        self.query_key_value = nn.Conv2d(channels, 3 * width, 1, bias=False)
        self.project = nn.Conv2d(width, channels, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        parts_N3hPd = self.query_key_value(x_NCHW).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(3, 4)
        attended_NhPd = functional.scaled_dot_product_attention(*parts_N3hPd.unbind(1))
        return x_NCHW + self.project(attended_NhPd.transpose(2, 3).flatten(1, 2).unflatten(2, x_NCHW.shape[2:]))


class ExpectationMaximizationAttention(nn.Module):
    """The EMA unit (Li et al., ICCV 2019, equations 12 to 15): K bases found by three steps of EM on each image.

    The bases start from a moving average over batches; the gradient flows through the last responsibilities only.
    """

    bases: Tensor

    def __init__(self, channels: int, bases: int = 64, steps: int = 3, momentum: float = 0.9) -> None:
        super().__init__()
        self.steps, self.momentum = steps, momentum
        self.enter = nn.Conv2d(channels, channels, 1)
        self.leave = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.register_buffer("bases", functional.normalize(torch.randn(channels, bases), dim=0))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        entered_NCP = self.enter(x_NCHW).flatten(2)
        with torch.no_grad():
            bases_NCK = self.bases.to(entered_NCP.dtype).expand(entered_NCP.shape[0], -1, -1)
            for _ in range(self.steps):
                shares_NKP = (bases_NCK.transpose(1, 2) @ entered_NCP).softmax(1)
                bases_NCK = functional.normalize(_means(entered_NCP, shares_NKP), dim=1)
        shares_NKP = (bases_NCK.transpose(1, 2) @ entered_NCP).softmax(1)
        if self.training:
            self._update_bases(bases_NCK.mean(0))
        rebuilt = functional.relu((bases_NCK @ shares_NKP).unflatten(2, x_NCHW.shape[2:]))
        return functional.relu(x_NCHW + self.leave(rebuilt))

    @torch.no_grad()
    def _update_bases(self, batch_CK: Tensor) -> None:
        self.bases.lerp_(batch_CK.to(self.bases.dtype), 1 - self.momentum)


def _means(features_NCP: Tensor, shares_NKP: Tensor) -> Tensor:
    return features_NCP @ (shares_NKP / (shares_NKP.sum(2, keepdim=True) + 1e-6)).transpose(1, 2)


class ExternalAttention(nn.Module):
    """External attention (Guo et al., TPAMI 2022, equations 5, 6): two memories of 64 rows learned over all images.

    Double normalisation: softmax over positions, then each position's sum over the memory is 1. As in the public code: a 1x1
    convolution before and after, BatchNorm, ReLU after the residual.
    """

    def __init__(self, channels: int, memories: int = 64) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, channels, 1)
        self.keys = nn.Conv1d(channels, memories, 1, bias=False)
        self.values = nn.Conv1d(memories, channels, 1, bias=False)
        self.leave = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        over_positions = self.keys(self.enter(x_NCHW).flatten(2)).softmax(2)
        shares_NKP = over_positions / (over_positions.sum(1, keepdim=True) + 1e-9)
        attended = self.values(shares_NKP).unflatten(2, x_NCHW.shape[2:])
        return functional.relu(x_NCHW + self.leave(attended))


class PooledCompressedSelfAttention(nn.Module):
    """CSA whose base vectors come from the image: means of a rows x columns grid of its cells, projected.

    The idea is that of the authors' later CSALR; the formula is ours: v_k = Wq mean(X over cell k), M = v^T Wk X with
    queries and keys of C/8 dimensions, and from M on equations (3) to (7). D = rows * columns maps, no groups.
    """

    def __init__(self, channels: int, rows: int = 8, columns: int = 4, reduction: int = 8, alpha: float = 0.0) -> None:
        super().__init__()
        if channels % reduction:
            raise UserError(f"channels must be a multiple of reduction, got channels={channels} and reduction={reduction}")
        self.grid = (rows, columns)
        self.query = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.key = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.value = nn.Conv1d(channels, channels, 1, bias=False)
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        vectors_NKD = self.query(functional.adaptive_avg_pool2d(x_NCHW, self.grid)).flatten(2)
        logits_NDP = vectors_NKD.transpose(1, 2) @ self.key(x_NCHW).flatten(2)
        gathered_NCD = x_NCHW.flatten(2) @ logits_NDP.softmax(2).transpose(1, 2)
        attended_NCP = self.value(gathered_NCD) @ logits_NDP.softmax(1)
        return x_NCHW + self.alpha * attended_NCP.unflatten(2, x_NCHW.shape[2:])
