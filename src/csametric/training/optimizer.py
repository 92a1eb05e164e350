"""SGD in parameter groups, and learning rates as pure functions of the step."""

import math
from collections.abc import Sequence
from typing import Any

from torch import nn, optim

from csametric.runs.experiment import DescriptorOptimizer, ReidOptimizer

ATTENTION = "attention"


def descriptor_optimizer(model: nn.Module, settings: DescriptorOptimizer) -> optim.SGD:
    """Groups for the convolutions, the attention's weights, and alpha."""
    rest, attention, alphas = _split_attention(model)
    groups = [{"params": rest, "lr": settings.lr}, *_attention_groups(attention, alphas, settings)]
    return _sgd(groups, settings, dampening=settings.dampening)


def reid_optimizer(model: nn.Module, settings: ReidOptimizer, pretrained: bool) -> optim.SGD:
    """Groups for the backbone (at its own rate only where it starts from weights), the rest, the attention, and alpha."""
    rest, attention, alphas = _split_attention(model)
    trunk = {id(parameter) for parameter in model.get_submodule("backbone").parameters()}
    groups = [
        {"params": [p for p in rest if id(p) in trunk], "lr": settings.backbone_lr if pretrained else settings.lr},
        {"params": [p for p in rest if id(p) not in trunk], "lr": settings.lr},
        *_attention_groups(attention, alphas, settings),
    ]
    return _sgd(groups, settings, nesterov=settings.nesterov)


def _split_attention(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Parameters outside attention layers, their weights, and their alphas."""
    rest: list[nn.Parameter] = []
    attention: list[nn.Parameter] = []
    alphas: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        (rest if ATTENTION not in parts else alphas if parts[-1] == "alpha" else attention).append(parameter)
    return rest, attention, alphas


def _attention_groups(
    attention: list[nn.Parameter], alphas: list[nn.Parameter], settings: DescriptorOptimizer | ReidOptimizer
) -> list[dict[str, Any]]:
    return [
        {"params": attention, "lr": settings.attention_lr},
        {"params": alphas, "lr": settings.alpha_lr, "weight_decay": 0.0},
    ]


def _sgd(groups: Sequence[dict[str, Any]], settings: DescriptorOptimizer | ReidOptimizer, **options: Any) -> optim.SGD:
    """Groups without parameters are left out; each keeps its rate at the start of the schedule as "initial_lr"."""
    used = [{**group, "initial_lr": group["lr"]} for group in groups if group["params"]]
    return optim.SGD(used, momentum=settings.momentum, weight_decay=settings.weight_decay, **options)


def scale_learning_rates(optimizer: optim.Optimizer, factor: float) -> None:
    """Every group's rate is its initial one times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def linear_decay(step: int, steps: int) -> float:
    """1 at step 0, 0 at step `steps`."""
    return 1 - step / steps


def scheduled(settings: ReidOptimizer, epoch: float, epochs: int) -> float:
    """The factor at a moment of the run, in epochs from 0 on: warm-up, then steps down or a cosine."""
    if epoch < settings.warmup_epochs:
        return epoch / settings.warmup_epochs
    if settings.schedule == "step":
        return settings.decay ** math.floor(epoch / settings.decay_every)
    done = (epoch - settings.warmup_epochs) / max(epochs - settings.warmup_epochs, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
