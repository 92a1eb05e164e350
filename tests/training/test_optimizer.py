"""Parameter groups and learning rate schedules."""

import pytest
import torch

from csametric import PCB, L2Net
from csametric.runs.experiment import DescriptorOptimizer, ReidOptimizer
from csametric.training.optimizer import (
    descriptor_optimizer,
    linear_decay,
    reid_optimizer,
    scale_learning_rates,
    schedule_factor,
)

SETTINGS = DescriptorOptimizer(lr=10, attention_lr=0.5, alpha_lr=0.25)


@pytest.mark.parametrize("attention", [None, "sa", "csa"])
def test_every_descriptor_parameter_is_in_one_group(attention):
    net = L2Net(attention)
    groups = descriptor_optimizer(net, SETTINGS).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in net.named_parameters():
        if not name.startswith("attention."):
            expected = 10
        elif name.endswith("alpha"):
            expected = 0.25
        else:
            expected = 0.5
        assert rates[id(parameter)] == expected, name
        assert decays[id(parameter)] == (0 if name.endswith("alpha") else 1e-4), name


def test_learning_rates_decay_linearly_to_zero():
    optimizer = descriptor_optimizer(L2Net("csa"), SETTINGS)
    for step, factor in ((0, 1), (50, 0.5), (99, 0.01)):
        scale_learning_rates(optimizer, linear_decay(step, 100))
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([10 * factor, 0.5 * factor, 0.25 * factor])


def test_two_steps_match_a_hand_computation():
    """Gradient 1 twice at lr 10, momentum = dampening = 0.9, no decay; dampening does not apply to the first step."""
    weight = torch.nn.Parameter(torch.zeros(()))
    module = torch.nn.Module()
    module.weight = weight
    optimizer = descriptor_optimizer(module, DescriptorOptimizer(lr=10, weight_decay=0))
    for expected in (-10, -10 - 10 * (0.9 * 1 + 0.1 * 1)):
        weight.grad = torch.ones(())
        optimizer.step()
        assert weight.item() == pytest.approx(expected)


@pytest.mark.parametrize("pretrained", [False, True])
def test_every_reid_parameter_is_in_one_group(pretrained):
    model = PCB("resnet18", num_ids=3, parts=2, maps=4)
    settings = ReidOptimizer(lr=0.4, backbone_lr=0.04, attention_lr=0.2, alpha_lr=0.3)
    groups = reid_optimizer(model, settings, pretrained).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if name.endswith("attention.alpha"):
            expected = (0.3, 0)
        elif ".attention." in name:
            expected = (0.2, 1e-4)
        else:
            expected = (0.04 if pretrained and name.startswith("backbone") else 0.4, 1e-4)
        assert (rates[id(parameter)], decays[id(parameter)]) == expected, name


def test_step_schedule_decays_every_forty_epochs():
    settings = ReidOptimizer(decay_every=40)
    assert [schedule_factor(settings, epoch, 100) for epoch in (0, 39.9, 40, 79, 80, 99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_cosine_schedule_follows_the_warm_up():
    settings = ReidOptimizer(schedule="cosine", warmup_epochs=2)
    assert [schedule_factor(settings, epoch, 10) for epoch in (0, 1, 2, 6, 10)] == pytest.approx([0, 0.5, 1, 0.5, 0])
