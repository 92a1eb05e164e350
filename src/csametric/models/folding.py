"""Fold the BatchNorms of any network into its convolutions, for inference."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

# Exact types, because subclasses may compute something else with the weights, e.g. standardise them first.
CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
NORMALIZATIONS = (nn.BatchNorm2d, BatchNormAct2d)


@torch.inference_mode()
def fold_batch_norms(network: nn.Module, example: Tensor) -> nn.Module:
    """Copy a network in evaluation mode, with BatchNorms folded into the convolutions before them.

    A forward of the example shows which BatchNorm reads the output of which convolution. A BatchNorm stays where anything else
    reads that output too, or where either of the two is called more than once.

    Args:
        network: any network; unchanged.
        example: an input, on the network's device.

    Returns:
        A network with the same output up to rounding.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        >>> fold_batch_norms(network, torch.zeros(1, 3, 8, 8))[1]
        Identity()
    """
    folded = copy.deepcopy(network).eval()
    modules = dict(folded.named_modules())
    for convolution, normalization in _pairs_to_fold(folded, example).items():
        old = modules[normalization]
        folded.set_submodule(convolution, fuse_conv_bn_eval(modules[convolution], old))
        folded.set_submodule(normalization, nn.Sequential(old.drop, old.act) if hasattr(old, "act") else nn.Identity())
    return folded


class _Readers(TorchFunctionMode):
    """Counts how many functions read each tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()
        self.outputs: list[Any] = []  # kept alive, so that an id stands for one tensor

    def __torch_function__(
        self, function: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(output)):  # others ask for a shape or a type
            self.counts.update({id(leaf) for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)})
            self.outputs.append(output)
        return output


def _pairs_to_fold(network: nn.Module, example: Tensor) -> dict[str, str]:
    """The names of convolutions, each with that of the BatchNorm that is the only reader of its output."""
    calls: Counter[str] = Counter()
    convolution_of: dict[int, str] = {}  # by the id of its output
    input_of: dict[str, int] = {}  # the id of a BatchNorm's input

    def watch(name: str, module: nn.Module) -> Any:
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] += 1
            if type(module) in CONVOLUTIONS:
                convolution_of[id(output)] = name
            else:
                input_of[name] = id(inputs[0])

        return module.register_forward_hook(note)

    hooks = [watch(name, module) for name, module in network.named_modules() if _may_be_folded(module)]
    with _Readers() as readers:
        network(example)
    for hook in hooks:
        hook.remove()
    return {
        convolution_of[tensor]: name
        for name, tensor in input_of.items()
        if readers.counts[tensor] == 1 and tensor in convolution_of and calls[name] == calls[convolution_of[tensor]] == 1
    }


def _may_be_folded(module: nn.Module) -> bool:
    if type(module) in NORMALIZATIONS:
        return module.running_mean is not None
    return type(module) in CONVOLUTIONS
