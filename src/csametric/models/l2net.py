"""L2Net (Tian et al. 2017), the network of HardNet and RALNet, with attention after its third convolution."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from csametric.attention.catalogue import attention_maker, refuse_ignored
from csametric.attention.layers import MakeLayer

PATCH_SIDE = 32
ATTENTION_CHANNELS = 64
ORTHOGONAL_GAIN = 0.6


class L2Net(nn.Module):
    """A descriptor of grey patches: (N, 1, 32, 32) -> (N, 128), unit vectors in fp32.

    Seven convolutions with BatchNorm (without affine parameters); without attention 1,334,560 parameters and 39.1 million
    multiply-adds per patch. Each patch is first normalised by its own mean and deviation, so grey values may have any range.

    Args:
        attention: the layer after the third convolution block (64 x 16 x 16): None, "sa", "csa" (one group, as in the
            paper), or a function from channels to a module.
        maps: D of "csa". The paper does not state it for descriptors; 32 is its setting for re-identification.
        dropout: the dropout probability in front of the last convolution.

    Raises:
        UserError: an unknown attention name.

    Examples:
        >>> net = L2Net(attention="csa").eval()
        >>> net(torch.zeros(5, 1, 32, 32)).shape
        torch.Size([5, 128])
    """

    def __init__(self, attention: str | MakeLayer | None = None, maps: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        local = nn.Sequential(
            *_convolution_block(1, 32),
            *_convolution_block(32, 32),
            *_convolution_block(32, ATTENTION_CHANNELS, stride=2),
        )
        head = nn.Sequential(
            *_convolution_block(ATTENTION_CHANNELS, 64),
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
        # Initialised last, so that one seed gives the other layers the same weights with any attention.
        self.attention = nn.Identity() if make_layer is None else make_layer(ATTENTION_CHANNELS)
        self.head = head

    def forward(self, patches_N1HW: Tensor) -> Tensor:
        """Describe patches, (N, 1, 32, 32) -> unit vectors (N, 128)."""
        if patches_N1HW.shape[1:] != (1, PATCH_SIDE, PATCH_SIDE):
            raise ValueError(
                f"patches must have the shape (N, 1, {PATCH_SIDE}, {PATCH_SIDE}), got {tuple(patches_N1HW.shape)}; "
                "resize them and convert them to grey"
            )
        x = normalize_patches(patches_N1HW)
        x = self.local(x)
        x = self.attention(x)
        x = self.head(x)
        return unit_length(x.flatten(1))


def fold_l2net(net: L2Net) -> L2Net:
    """Copy a network in evaluation mode, with each BatchNorm folded into its convolution.

    The copy computes the same descriptors and is about 8 % faster.
    """
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
    """Subtract the mean of each patch and divide by its standard deviation (unbiased) + 1e-7.

    Args:
        patches_N1HW: (N, 1, H, W).

    Returns:
        (N, 1, H, W).

    Examples:
        >>> normalize_patches(torch.tensor([[[[1.0, 3.0]]]])).flatten()
        tensor([-0.7071,  0.7071])
    """
    deviation, mean = torch.std_mean(patches_N1HW, dim=(1, 2, 3), keepdim=True)
    return (patches_N1HW - mean) / (deviation + 1e-7)


def unit_length(x_ND: Tensor) -> Tensor:
    """Scale vectors to unit length: x / sqrt(sum x^2 + 1e-10), in fp32 or better because 1e-10 is 0 in fp16.

    Args:
        x_ND: (N, D).

    Returns:
        (N, D).

    Examples:
        >>> unit_length(torch.tensor([[3.0, 4.0]]))
        tensor([[0.6000, 0.8000]])
    """
    x_ND = x_ND.to(torch.promote_types(x_ND.dtype, torch.float32))
    return x_ND / (x_ND.square().sum(1, keepdim=True) + 1e-10).sqrt()


def _convolution_block(channels_in: int, channels_out: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out, affine=False),
        nn.ReLU(),
    ]
