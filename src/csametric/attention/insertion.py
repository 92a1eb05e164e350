"""Put a layer after any stage of a convolutional network, and take it out again.

A stage is an outermost submodule within which the resolution stays: layer1 to layer4 of a ResNet, blocks.0 to blocks.6 of
an EfficientNet, stages.0 to stages.3 of a ConvNeXt.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from csametric.attention.layers import MakeLayer
from csametric.errors import UserError

Example = Tensor | tuple[Any, ...]  # an input, or all arguments of a forward

CHILD = "attention"
_PROBE_SIDE = 256


class FeatureMap(NamedTuple):
    """The shape of a module's output."""

    channels: int  # C
    reduction: int  # how many times smaller than the image the map is, a power of two


def insert_after(model: nn.Module, layers: Mapping[str, MakeLayer], example: Example | None = None) -> nn.Module:
    """Put `make_layer(channels)` after each named stage, in place; returns the model.

    The layer becomes the child "attention" of its stage, on its device, of its type and in its mode, so that all state-dict
    keys of the network stay as they were. Works with timm's and torchvision's convolutional networks, `torch.compile`,
    DistributedDataParallel, deepcopy and pickle.

    Args:
        layers: for the name of a stage (`stages(model)` lists them) or of another submodule whose output is a map
            (N, C, H, W), a function from C to a module (N, C, H, W) -> (N, C, H, W).
        example: an input that the network takes, a tensor or a tuple of arguments, for networks that cannot be run on an
            image of 256 x 256 up to the named stages. By default shapes are found without computing values.

    Raises:
        UserError: an unknown stage (the message lists the known ones), one that cannot take a layer, one that already has a
            layer, or a network that needs an example. The model is left unchanged.

    Examples:
        >>> import torchvision
        >>> from csametric import CompressedSelfAttention
        >>> resnet = insert_after(torchvision.models.resnet18(), {"layer1": CompressedSelfAttention})
        >>> resnet.layer1.attention.channels
        64
    """
    for name, make_layer in layers.items():
        if isinstance(make_layer, nn.Module) or not callable(make_layer):
            raise UserError(
                f"{name!r} needs a function or class that makes a layer from a number of channels, got {make_layer}"
            )
    maps = feature_maps(model, example, until=layers)
    for name in layers:
        _check_stage(model, maps, name)
    new_layers = {name: make_layer(maps[name].channels) for name, make_layer in layers.items()}
    for name in new_layers:
        model.get_submodule(name).add_module(CHILD, nn.Identity())
    run_by_their_stage = feature_maps(model, example, until=layers)  # Sequential and its like run every child they have
    for name, layer in new_layers.items():
        stage = model.get_submodule(name)
        stage.add_module(CHILD, _like(stage, layer))
        if f"{name}.{CHILD}" not in run_by_their_stage:
            stage.register_forward_hook(_run_child)
    return model


def remove_after(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Remove what `insert_after` put after the named stages, in place; returns the model.

    Raises:
        UserError: a stage without such a layer.
    """
    for name in names:
        stage = dict(model.named_modules()).get(name)
        if stage is None or not hasattr(stage, CHILD):
            raise UserError(f"stage {name!r} is unknown or without an inserted layer; name one that insert_after was given")
        for key, hook in list(stage._forward_hooks.items()):
            if hook is _run_child:
                del stage._forward_hooks[key]
        delattr(stage, CHILD)
    return model


def stages(model: nn.Module) -> dict[str, FeatureMap]:
    """The stages of a network by name, in the order they run.

    Examples:
        >>> import torchvision
        >>> stages(torchvision.models.resnet18())["layer2"]
        FeatureMap(channels=128, reduction=8)
    """
    return dict(_stages(model, feature_maps(model), ""))


def feature_maps(model: nn.Module, example: Example | None = None, until: Collection[str] = ()) -> dict[str, FeatureMap]:
    """All submodules whose output is a map, by name, in the order they finish, from one forward in evaluation mode.

    Args:
        model: left unchanged.
        example: as in `insert_after`; without one, the forward computes shapes without values.
        until: the forward stops once these have finished.

    Raises:
        UserError: the network cannot be run on the example.
    """
    maps: dict[str, FeatureMap] = {}
    inputs = _inputs(model, example)
    side = next((tensor.shape[2] for tensor in inputs if isinstance(tensor, Tensor) and tensor.dim() == 4), _PROBE_SIDE)
    hooks = [
        module.register_forward_hook(_shape_recorder(maps, name, side, until)) for name, module in model.named_modules() if name
    ]
    try:
        with torch.no_grad(), _unchanged(model):
            model.eval()
            if example is None:
                torch.func.functional_call(model, _without_values(model), inputs)
            else:
                model(*inputs)
    except _AllFinishedError:
        pass
    except Exception as error:
        what = f"an image of {side} x {side}" if example is None else "the example"
        problem = f"the network fails on {what} ({type(error).__name__}: {error})"
        raise UserError(f"{problem}; give insert_after an example=, an input that the network takes") from error
    finally:
        for hook in hooks:
            hook.remove()
    return maps


class _AllFinishedError(Exception):
    """Ends a forward whose remaining results are not needed."""


def _inputs(model: nn.Module, example: Example | None) -> tuple[Any, ...]:
    if example is not None:
        return (example,) if isinstance(example, Tensor) else tuple(example)
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise UserError("the network has lazy parameters without a shape; run it once on an example before insert_after")
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    channels = next((convolution.in_channels for convolution in convolutions), 3)
    return (torch.empty(2, channels, _PROBE_SIDE, _PROBE_SIDE, device="meta"),)


def _without_values(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of the right shapes and types, without memory."""
    tensors = itertools.chain(model.named_parameters(), model.named_buffers())
    return {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Restore the modes of all modules, and the tensors that hooks such as `weight_norm` set as plain attributes."""
    before = [
        (module, module.training, {name: value for name, value in vars(module).items() if isinstance(value, Tensor)})
        for module in model.modules()
    ]
    try:
        yield
    finally:
        for module, is_training, tensors in before:
            module.training = is_training
            vars(module).update(tensors)


def _shape_recorder(
    maps: dict[str, FeatureMap], name: str, side: int, until: Collection[str]
) -> Callable[[nn.Module, Any, Any], None]:
    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.numel():
            maps[name] = FeatureMap(output.shape[1], 2 ** round(math.log2(side / output.shape[2])))
        if until and maps.keys() >= set(until):
            raise _AllFinishedError

    return record


def _stages(module: nn.Module, maps: Mapping[str, FeatureMap], prefix: str) -> Iterator[tuple[str, FeatureMap]]:
    for name, child in module.named_children():
        path = prefix + name
        names = [f"{path}.{grandchild}" for grandchild, _ in child.named_children()]
        reductions = {maps[inner].reduction for inner in names if inner in maps}
        if len(reductions) > 1:
            yield from _stages(child, maps, f"{path}.")
        elif path in maps and any(list(grandchild.parameters()) for grandchild in child.children()):
            yield path, maps[path]


def _check_stage(model: nn.Module, maps: Mapping[str, FeatureMap], name: str) -> None:
    if name not in maps:
        raise UserError(f"unknown stage {name!r}; the stages of this model are {', '.join(dict(_stages(model, maps, '')))}")
    stage = model.get_submodule(name)
    if hasattr(stage, CHILD):
        raise UserError(f"stage {name!r} already has a child {CHILD!r}; remove an inserted layer with remove_after first")
    if isinstance(stage, nn.ModuleDict | nn.ModuleList):
        raise UserError(f"stage {name!r} is a container without a forward; insert after the module that follows it")


def _like(stage: nn.Module, layer: nn.Module) -> nn.Module:
    """The layer on the device, of the floating-point type and in the mode (training or evaluation) of a stage."""
    example = next((p for p in stage.parameters() if p.is_floating_point()), None)
    moved = layer if example is None else layer.to(device=example.device, dtype=example.dtype)
    return moved.train(stage.training)


def _run_child(stage: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return stage.get_submodule(CHILD)(output)
