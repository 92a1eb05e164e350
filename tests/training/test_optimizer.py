"""Parameter groups and the schedule."""

import pytest
import torch

from csametric import L2Net
from csametric.training.experiment import OptimizerSettings
from csametric.training.optimizer import build_optimizer, set_learning_rates

SETTINGS = OptimizerSettings(lr=10, attention_lr=0.5, alpha_lr=0.25)


@pytest.mark.parametrize("attention", [None, "sa", "csa"])
def test_each_parameter_is_in_its_group_once(attention):
    net = L2Net(attention)
    groups = build_optimizer(net, SETTINGS).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in net.named_parameters():
        expected = 10 if not name.startswith("attention.") else 0.25 if name.endswith("alpha") else 0.5
        assert rates[id(parameter)] == expected, name
        assert decays[id(parameter)] == (0 if name.endswith("alpha") else 1e-4), name


def test_rates_fall_linearly_to_zero():
    optimizer = build_optimizer(L2Net("csa"), SETTINGS)
    for step, share in ((0, 1), (50, 0.5), (99, 0.01)):
        set_learning_rates(optimizer, step, 100)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([10 * share, 0.5 * share, 0.25 * share])


def test_two_steps_worked_by_hand():
    """Gradient 1 twice at lr 10, momentum = dampening = 0.9, no decay: the first step takes the gradient whole."""
    weight = torch.nn.Parameter(torch.zeros(()))
    holder = torch.nn.Module()
    holder.weight = weight
    optimizer = build_optimizer(holder, OptimizerSettings(lr=10, weight_decay=0))
    for expected in (-10, -10 - 10 * (0.9 * 1 + 0.1 * 1)):
        weight.grad = torch.ones(())
        optimizer.step()
        assert weight.item() == pytest.approx(expected)
