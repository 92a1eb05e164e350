"""Distances and similarities: values, ranges, directions, precision."""

import math

import torch

from csametric.distances import ANGULAR, COSINE, UNIT_EUCLIDEAN, angular_distances, unit_euclidean_distances


def test_distances_match_hand_computations():
    a = torch.tensor([[1.0, 0.0]])
    b = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    torch.testing.assert_close(unit_euclidean_distances(a, b), torch.tensor([[0.0, math.sqrt(2), 2.0]]))
    torch.testing.assert_close(angular_distances(a, b), torch.tensor([[0.0, 2.0, 4.0]]))
    torch.testing.assert_close(COSINE.compute(a, b), torch.tensor([[1.0, 0.0, -1.0]]))
    torch.testing.assert_close(unit_euclidean_distances(a, a, epsilon=1e-6), torch.tensor([[1e-3]]))


def test_all_measures_rank_unit_vectors_alike():
    units = torch.nn.functional.normalize(torch.randn(20, 8, dtype=torch.float64), dim=1)
    orders = [measure.as_distance(units[:1], units[1:]).argsort() for measure in (UNIT_EUCLIDEAN, ANGULAR, COSINE)]
    assert all(torch.equal(order, orders[0]) for order in orders)


def test_distances_of_bf16_vectors_are_non_negative_fp32():
    units = torch.nn.functional.normalize(torch.randn(50, 128), dim=1).bfloat16()
    for compute in (unit_euclidean_distances, angular_distances):
        distances = compute(units, units)
        assert distances.dtype == torch.float32
        assert (distances >= 0).all()
