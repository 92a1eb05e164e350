"""Attention layers by name, and settings that a named layer would ignore."""

import subprocess
import sys

import pytest
import torch

from csametric import PCB, L2Net
from csametric.attention.catalogue import NAMES, attention_maker, refuse_ignored
from csametric.errors import UserError


@pytest.mark.parametrize("name", NAMES)
def test_every_name_makes_a_layer(name):
    layer = attention_maker(name, maps=8, groups=2, alpha=0.5, learn_alpha=True, norm=False)(64).eval()
    assert layer(torch.randn(1, 64, 6, 5)).shape == (1, 64, 6, 5)


def test_settings_reach_the_layers_that_have_them():
    layer = attention_maker("csa", maps=8, groups=4, alpha=0.5, learn_alpha=False, norm=True)(64)
    assert (layer.maps, layer.groups, layer.alpha.item(), layer.norm is None) == (8, 4, 0.5, False)
    assert attention_maker("sa", maps=8, alpha=0.5)(64).alpha.item() == 0.5


def test_none_and_callables_are_returned_unchanged():
    assert attention_maker(None) is None
    assert attention_maker(torch.nn.BatchNorm2d) is torch.nn.BatchNorm2d


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="attention='cas' is unknown; use None, 'sa', 'csa', 'non_local'"):
        attention_maker("cas")


def test_settings_that_a_peer_would_ignore_are_refused():
    refuse_ignored("csa", maps=8, groups=1, alpha=1.0, norm=True)
    refuse_ignored("gc", maps=32, groups=2, alpha=0.0, norm=False)
    for unchecked in (None, "sa", torch.nn.BatchNorm2d):
        refuse_ignored(unchecked, maps=8)
    with pytest.raises(UserError, match="attention='gc' does not use maps=8 and norm=True"):
        refuse_ignored("gc", maps=8, norm=True)
    with pytest.raises(UserError, match="attention='csa_pooled' does not use alpha=1"):
        refuse_ignored("csa_pooled", alpha=1.0)
    with pytest.raises(UserError, match="alpha=1"):
        PCB(backbone="test_resnet", attention="efficient", alpha=1.0)
    with pytest.raises(UserError, match="maps=8"):
        L2Net(attention="gc", maps=8)


def test_names_are_known_without_importing_timm():
    code = "import sys, csametric.attention.catalogue; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
