"""The weights of a layer's 1x1 convolutions, whatever tools have put in their place."""

import torch
from torch import Tensor, nn

from csametric.attention.reference import without_autocast
from csametric.errors import UserError


def weight_and_bias(convolution: nn.Module, channels: int, groups: int) -> tuple[Tensor, Tensor | None]:
    """The weight (O, channels/groups, 1, 1) and bias (O,) of a 1x1 convolution or of what stands for it.

    The layer never applies its convolutions to a feature map, so a plain one is read. One with hooks before its forward
    (`spectral_norm`, `weight_norm`, pruning) and a module around it (LoRA) compute their weights in their forward: they are
    applied to the unit vectors of their input, which gives the columns of the weight.

    Args:
        convolution: linear in its input but for a bias.
        channels: of its input.
        groups: of the convolution, and of every convolution in a module around it.

    Raises:
        UserError: a module around the convolution mixes its groups, as LoRA of peft does with groups > 1.

    Examples:
        >>> convolution = nn.Conv2d(4, 2, 1)
        >>> weight, bias = weight_and_bias(nn.Sequential(convolution), channels=4, groups=1)
        >>> torch.allclose(weight, convolution.weight), torch.allclose(bias, convolution.bias)
        (True, True)
    """
    if _is_plain(convolution):
        return convolution.weight, convolution.bias  # type: ignore[return-value]
    _check_groups(convolution, groups)
    size = channels // groups
    example = next(convolution.parameters())
    units_cc = torch.eye(size, dtype=example.dtype, device=example.device)
    columns_Cc = torch.cat([units_cc, units_cc.new_zeros(size, 1)], 1).repeat(groups, 1)  # the last one gives the bias
    with without_autocast(columns_Cc):
        outputs_Oc = convolution(columns_Cc[None, :, :, None])[0, :, :, 0]
    bias_O = outputs_Oc[:, -1]
    return (outputs_Oc[:, :-1] - bias_O[:, None])[:, :, None, None], bias_O


def _check_groups(module: nn.Module, groups: int) -> None:
    """Raise `UserError` if a part of the module has fewer groups: its effect on one group could not be told from the others."""
    mixing = [type(part).__name__ for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    grouped = [part for part in module.modules() if isinstance(part, nn.Conv2d) and part.groups == groups]
    if groups > 1 and len(grouped) < len(mixing):
        raise UserError(
            f"{type(module).__name__} mixes the {groups} groups of channels of a layer; adapt one with groups=1, "
            f"or use an adapter with groups={groups}"
        )


def _is_plain(convolution: nn.Module) -> bool:
    """Whether its forward uses its weight as it is; `torch.nn.utils.parametrize` makes a weight that is read right."""
    return (
        isinstance(convolution, nn.Conv2d)
        and type(convolution).forward is nn.Conv2d.forward
        and "forward" not in vars(convolution)
        and not convolution._forward_pre_hooks
    )
