"""L2Net (Tian et al. 2017), the network of HardNet and RALNet, with attention after its third layer."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from csametric.attention.catalogue import attention_maker, refuse_ignored
from csametric.attention.layers import MakeLayer

PATCH_SIDE = 32
ATTENDED_CHANNELS = 64
ORTHOGONAL_GAIN = 0.6


class L2Net(nn.Module):
    """A descriptor of grey patches, (N, 1, 32, 32) -> (N, 128) of unit length in fp32.

    Seven convolutions with BatchNorm (no affine), 1,334,560 parameters without attention, 39.1 M multiply-adds a patch.
    Each patch is normalised by its own mean and deviation first, so any range of grey values will do.

    Args:
        attention: the layer after the third convolution block (64 x 16 x 16): None, "sa", "csa" (no groups, as in the
            paper), or a callable from the number of channels to a module.
        maps: D of "csa"; the paper does not print it for descriptors, 32 is its re-identification setting.
        dropout: the probability in front of the last convolution.

    Raises:
        UserError: an unknown attention name.
    """

    def __init__(self, attention: str | MakeLayer | None = None, maps: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        local = nn.Sequential(
            *_convolution_block(1, 32),
            *_convolution_block(32, 32),
            *_convolution_block(32, ATTENDED_CHANNELS, stride=2),
        )
        head = nn.Sequential(
            *_convolution_block(ATTENDED_CHANNELS, 64),
            *_convolution_block(64, 128, stride=2),
            *_convolution_block(128, 128),
            nn.Dropout(dropout),
            nn.Conv2d(128, 128, 8, bias=False),
            nn.BatchNorm2d(128, affine=False),
        )
        for module in (*local, *head):
            if isinstance(module, nn.Conv2d):
                nn.init.orthogonal_(module.weight, gain=ORTHOGONAL_GAIN)
        self.local = local
        refuse_ignored(attention, maps=maps)
        make_layer = attention_maker(attention, maps=maps, groups=1)
        self.attention = (
            nn.Identity() if make_layer is None else make_layer(ATTENDED_CHANNELS)
        )  # drawn last: one seed gives every attention the same network
        self.head = head

    def forward(self, patches_N1HW: Tensor) -> Tensor:
        """(N, 1, 32, 32) -> (N, 128), unit length."""
        if patches_N1HW.shape[1:] != (1, PATCH_SIDE, PATCH_SIDE):
            raise ValueError(f"L2Net takes (N, 1, {PATCH_SIDE}, {PATCH_SIDE}), got {tuple(patches_N1HW.shape)}")
        x = normalize_patches(patches_N1HW)
        x = self.local(x)
        x = self.attention(x)
        x = self.head(x)
        return unit_length(x.flatten(1))


def for_inference(net: L2Net) -> L2Net:
    """A copy in evaluation mode with each BatchNorm folded into its convolution: the same function, a twelfth faster."""
    folded = copy.deepcopy(net).eval()
    folded.local, folded.head = (_without_normalization(part) for part in (folded.local, folded.head))
    return folded


def _without_normalization(part: nn.Sequential) -> nn.Sequential:
    modules: list[nn.Module] = []
    for module in part:
        if isinstance(module, nn.BatchNorm2d):
            convolution = modules.pop()
            assert isinstance(convolution, nn.Conv2d)
            modules.append(fuse_conv_bn_eval(convolution, module))
        else:
            modules.append(nn.ReLU(inplace=True) if isinstance(module, nn.ReLU) else module)
    return nn.Sequential(*modules)


def normalize_patches(patches_N1HW: Tensor) -> Tensor:
    """Each patch less its mean, over its standard deviation (unbiased) + 1e-7; same shape."""
    deviation, mean = torch.std_mean(patches_N1HW, dim=(1, 2, 3), keepdim=True)
    return (patches_N1HW - mean) / (deviation + 1e-7)


def unit_length(x_ND: Tensor) -> Tensor:
    """X / sqrt(sum x^2 + 1e-10) in fp32 or better, (N, D): the epsilon vanishes in fp16."""
    x_ND = x_ND.to(torch.promote_types(x_ND.dtype, torch.float32))
    return x_ND / (x_ND.square().sum(1, keepdim=True) + 1e-10).sqrt()


def _convolution_block(channels_in: int, channels_out: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out, affine=False),
        nn.ReLU(),
    ]
