"""SGD with parameter groups, and learning rate schedules as pure functions of the step."""

import math
from collections.abc import Sequence
from typing import Any

from torch import nn, optim

from csametric.runs.experiment import DescriptorOptimizer, ReidOptimizer

ATTENTION = "attention"


def descriptor_optimizer(model: nn.Module, settings: DescriptorOptimizer) -> optim.SGD:
    """Build SGD with groups for the convolutions, the weights of the attention, and alpha."""
    rest, attention, alphas = _split_attention(model)
    groups = [{"params": rest, "lr": settings.lr}, *_attention_groups(attention, alphas, settings)]
    return _sgd(groups, settings, dampening=settings.dampening)


def reid_optimizer(model: nn.Module, settings: ReidOptimizer, pretrained: bool) -> optim.SGD:
    """Build SGD with groups for the backbone, the other layers, the weights of the attention, and alpha.

    Args:
        model: a PCB.
        settings: learning rates and options of SGD.
        pretrained: whether training starts from pretrained weights; the backbone then has its own learning rate.
    """
    rest, attention, alphas = _split_attention(model)
    backbone = {id(parameter) for parameter in model.get_submodule("backbone").parameters()}
    groups = [
        {"params": [p for p in rest if id(p) in backbone], "lr": settings.backbone_lr if pretrained else settings.lr},
        {"params": [p for p in rest if id(p) not in backbone], "lr": settings.lr},
        *_attention_groups(attention, alphas, settings),
    ]
    return _sgd(groups, settings, nesterov=settings.nesterov)


def _split_attention(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Split parameters into those outside attention layers, the weights of attention layers, and their alphas."""
    rest: list[nn.Parameter] = []
    attention: list[nn.Parameter] = []
    alphas: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        path = name.split(".")
        if ATTENTION not in path:
            rest.append(parameter)
        elif path[-1] == "alpha":
            alphas.append(parameter)
        else:
            attention.append(parameter)
    return rest, attention, alphas


def _attention_groups(
    attention: list[nn.Parameter], alphas: list[nn.Parameter], settings: DescriptorOptimizer | ReidOptimizer
) -> list[dict[str, Any]]:
    return [
        {"params": attention, "lr": settings.attention_lr},
        {"params": alphas, "lr": settings.alpha_lr, "weight_decay": 0.0},
    ]


def _sgd(groups: Sequence[dict[str, Any]], settings: DescriptorOptimizer | ReidOptimizer, **options: Any) -> optim.SGD:
    """Build SGD with the groups that have parameters; each keeps its rate at the start of the schedule as "initial_lr"."""
    non_empty = [{**group, "initial_lr": group["lr"]} for group in groups if group["params"]]
    return optim.SGD(non_empty, momentum=settings.momentum, weight_decay=settings.weight_decay, **options)


def scale_learning_rates(optimizer: optim.Optimizer, factor: float) -> None:
    """Set the learning rate of every group to its initial one times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def linear_decay(step: int, steps: int) -> float:
    """Return a factor that falls linearly from 1 at step 0 to 0 at step `steps`.

    Examples:
        >>> linear_decay(25, 100)
        0.75
    """
    return 1 - step / steps


def schedule_factor(settings: ReidOptimizer, epoch: float, epochs: int) -> float:
    """Return the factor of the learning rate: a linear warm-up, then decay in steps or along a cosine.

    Args:
        settings: the schedule.
        epoch: the time, in epochs from 0 on, with fractions.
        epochs: of the whole run.

    Examples:
        >>> schedule_factor(ReidOptimizer(schedule="cosine", warmup_epochs=2), epoch=1, epochs=10)
        0.5
    """
    if epoch < settings.warmup_epochs:
        return epoch / settings.warmup_epochs
    if settings.schedule == "step":
        return settings.decay ** math.floor(epoch / settings.decay_every)
    progress = (epoch - settings.warmup_epochs) / max(epochs - settings.warmup_epochs, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
