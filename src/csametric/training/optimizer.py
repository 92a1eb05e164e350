"""SGD with parameter groups for the convolutions, the attention's weights and alpha; a linear schedule."""

from torch import nn, optim

from csametric.training.experiment import OptimizerSettings

ATTENTION = "attention."


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> optim.SGD:
    """Each group keeps its learning rate at the start of the schedule as "initial_lr"."""
    named = list(model.named_parameters())
    alphas = [p for name, p in named if name.startswith(ATTENTION) and name.endswith("alpha")]
    attention = [p for name, p in named if name.startswith(ATTENTION) and not name.endswith("alpha")]
    rest = [p for name, p in named if not name.startswith(ATTENTION)]
    groups = [
        {"params": rest, "lr": settings.lr},
        {"params": attention, "lr": settings.attention_lr},
        {"params": alphas, "lr": settings.alpha_lr, "weight_decay": 0.0},
    ]
    groups = [{**group, "initial_lr": group["lr"]} for group in groups if group["params"]]
    return optim.SGD(groups, momentum=settings.momentum, dampening=settings.dampening, weight_decay=settings.weight_decay)


def set_learning_rates(optimizer: optim.Optimizer, step: int, steps: int) -> None:
    """Linear decay: step 0 trains at the initial rates, step `steps` would at 0."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * (1 - step / steps)
