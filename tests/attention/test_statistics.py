"""Attention statistics on maps made by hand, and against slow loops."""

import math

import pytest
import torch

from csametric import CompressedSelfAttention
from csametric.attention.reference import AttentionMaps
from csametric.attention.statistics import attention_statistics, cosines_to_base_maps


def maps(base: torch.Tensor, weights: torch.Tensor) -> AttentionMaps:
    """From (D, P) each, as one image of one group and one row."""
    return AttentionMaps(*(each[None, None, :, None] for each in (base, weights)))


def test_maps_of_one_position_each():
    found = attention_statistics(maps(torch.eye(3, 4), torch.full((3, 4), 1 / 3)))
    assert found.entropy == pytest.approx(0)
    assert found.overlap == pytest.approx(0)
    assert found.used_maps == pytest.approx(3)
    torch.testing.assert_close(found.usage, torch.full((1, 3), 1 / 3))


def test_a_collapsed_layer():
    """All maps are the average, and one map has all the weight."""
    weights = torch.tensor([[1.0] * 4, [0.0] * 4])
    found = attention_statistics(maps(torch.full((2, 4), 0.25), weights))
    assert found.entropy == pytest.approx(1)
    assert found.overlap == pytest.approx(1)
    assert found.used_maps == pytest.approx(1)


def test_one_map_overlaps_with_none():
    assert math.isnan(attention_statistics(maps(torch.full((1, 4), 0.25), torch.ones(1, 4))).overlap)


def test_largest_cosines_equal_the_loops():
    torch.manual_seed(0)
    layer = CompressedSelfAttention(8, maps=5, groups=2)
    attended = layer.attention(3 * torch.randn(2, 8, 3, 4))
    found = cosines_to_base_maps(attended)
    assert found.shape == (2, 2, 5, 3, 4)
    for n in range(2):
        for g in range(2):
            for y in range(3):
                for x in range(4):
                    row = attended.at(y=y, x=x)[n, g].flatten()
                    cosines = [torch.cosine_similarity(row, base.flatten(), 0).item() for base in attended.base[n, g]]
                    assert found[n, g, :, y, x].tolist() == pytest.approx(cosines, abs=1e-5)


def test_a_reconstructed_map_that_is_a_base_map():
    weights = torch.tensor([[1.0, 0.5], [0.0, 0.5]])
    found = cosines_to_base_maps(maps(torch.eye(2), weights)).flatten(0, 3)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.5**0.5], [0.0, 0.5**0.5]]))
