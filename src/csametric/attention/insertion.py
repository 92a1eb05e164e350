"""Put a layer after any stage of a convolutional network, and take it out again.

A stage is an outermost submodule within which the resolution stays: layer1 to layer4 of a ResNet, blocks.0 to blocks.6 of
an EfficientNet, stages.0 to stages.3 of a ConvNeXt.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from csametric.attention.layers import MakeLayer
from csametric.errors import UserError

CHILD = "attention"
_PROBE_SIDE = 256


class FeatureMap(NamedTuple):
    """What a module gives out: its channels, and how many times smaller than the image its map is, a power of two."""

    channels: int
    reduction: int


def insert_after(model: nn.Module, layers: Mapping[str, MakeLayer]) -> nn.Module:
    """Put `make_layer(channels)` after each named stage, in place; returns the model.

    The layer becomes the child "attention" of its stage, on its device, of its type and in its mode, so that all state-dict
    keys of the network stay as they were. Works with timm's and torchvision's convolutional networks, `torch.compile`,
    DistributedDataParallel, deepcopy and pickle.

    Args:
        layers: by the name of a stage (`stages(model)` lists them) or of another submodule that gives out a map
            (N, C, H, W): a function from C to a module (N, C, H, W) -> (N, C, H, W).

    Raises:
        UserError: no such stage (the message lists those there are), one that cannot take a layer, or has one already.
            The model is left as it was.
    """
    for name, make_layer in layers.items():
        if isinstance(make_layer, nn.Module) or not callable(make_layer):
            raise UserError(f"what goes after {name!r} must make a layer of a number of channels; give a class or a function")
    maps = feature_maps(model)
    for name in layers:
        _check_stage(model, maps, name)
    made = {name: make_layer(maps[name].channels) for name, make_layer in layers.items()}
    for name in made:
        model.get_submodule(name).add_module(CHILD, nn.Identity())
    run_by_their_stage = feature_maps(model)  # Sequential and its like run every child they have
    for name, layer in made.items():
        stage = model.get_submodule(name)
        stage.add_module(CHILD, _like(stage, layer))
        if f"{name}.{CHILD}" not in run_by_their_stage:
            stage.register_forward_hook(_run_child)
    return model


def remove_after(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Take out again what `insert_after` put after the named stages, in place; returns the model.

    Raises:
        UserError: a stage without such a layer.
    """
    for name in names:
        stage = dict(model.named_modules()).get(name)
        if stage is None or not hasattr(stage, CHILD):
            raise UserError(f"stage {name!r} has no inserted layer to take out")
        for key, hook in list(stage._forward_hooks.items()):
            if hook is _run_child:
                del stage._forward_hooks[key]
        delattr(stage, CHILD)
    return model


def stages(model: nn.Module) -> dict[str, FeatureMap]:
    """The stages of a network by name, in the order they run."""
    return dict(_stages(model, feature_maps(model), ""))


def feature_maps(model: nn.Module) -> dict[str, FeatureMap]:
    """All submodules that give out a map, by name, in the order they finish; one pass of shapes without values."""
    probed = copy.deepcopy(model).to("meta").eval()
    found: dict[str, FeatureMap] = {}
    for name, module in probed.named_modules():
        if name:
            module.register_forward_hook(_noting(found, name))
    channels = next(module.in_channels for module in probed.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        probed(torch.empty(2, channels, _PROBE_SIDE, _PROBE_SIDE, device="meta"))
    return found


def _noting(found: dict[str, FeatureMap], name: str) -> Callable[[nn.Module, Any, Any], None]:
    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            found[name] = FeatureMap(output.shape[1], 2 ** round(math.log2(_PROBE_SIDE / output.shape[2])))

    return note


def _stages(module: nn.Module, maps: Mapping[str, FeatureMap], prefix: str) -> Iterator[tuple[str, FeatureMap]]:
    for name, child in module.named_children():
        path = prefix + name
        inner = {maps[f"{path}.{each}"].reduction for each, _ in child.named_children() if f"{path}.{each}" in maps}
        if len(inner) > 1:
            yield from _stages(child, maps, f"{path}.")
        elif path in maps and any(list(grandchild.parameters()) for grandchild in child.children()):
            yield path, maps[path]


def _check_stage(model: nn.Module, maps: Mapping[str, FeatureMap], name: str) -> None:
    if name not in maps:
        raise UserError(f"the model has no stage {name!r}; its stages are {', '.join(dict(_stages(model, maps, '')))}")
    stage = model.get_submodule(name)
    if hasattr(stage, CHILD):
        raise UserError(f"stage {name!r} has a child {CHILD!r} already; take an inserted one out with remove_after first")
    if isinstance(stage, nn.ModuleDict | nn.ModuleList):
        raise UserError(f"stage {name!r} runs over its children in a way of its own; insert after the module that follows it")


def _like(stage: nn.Module, layer: nn.Module) -> nn.Module:
    """The layer on the device, of the floating-point type and in the mode (training or evaluation) of a stage."""
    example = next((p for p in stage.parameters() if p.is_floating_point()), None)
    moved = layer if example is None else layer.to(device=example.device, dtype=example.dtype)
    return moved.train(stage.training)


def _run_child(stage: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return stage.get_submodule(CHILD)(output)
