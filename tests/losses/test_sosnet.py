"""SOSNet's loss against loops."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from csametric.errors import UserError
from csametric.losses.sosnet import SecondOrderLoss, sos_loss


def distance(a, b) -> float:
    return math.sqrt(max(0.0, 2 - 2 * float(a @ b)) + 1e-6)


def sos_by_loops(anchors, positives, margin: float, neighbours: int) -> float:
    count = len(anchors)
    total = 0.0
    for i in range(count):
        others = [j for j in range(count) if j != i]
        negative = min(
            min(distance(anchors[i], positives[j]), distance(positives[i], anchors[j]),
                distance(anchors[i], anchors[j]), distance(positives[i], positives[j]))
            for j in others
        )  # fmt: skip
        total += max(0.0, margin + distance(anchors[i], positives[i]) - negative) ** 2
        near = set(sorted(others, key=lambda j: distance(anchors[i], anchors[j]))[:neighbours])
        near |= set(sorted(others, key=lambda j: distance(positives[i], positives[j]))[:neighbours])
        squares = sum((distance(anchors[i], anchors[j]) - distance(positives[i], positives[j])) ** 2 for j in near)
        total += math.sqrt(squares)
    return total / count


@pytest.mark.parametrize("neighbours", [1, 3, 50])
def test_the_loss_equals_loops(neighbours):
    torch.manual_seed(neighbours)
    anchors, positives = (normalize(torch.randn(12, 16, dtype=torch.float64)) for _ in range(2))
    expected = sos_by_loops(anchors, positives, 0.7, neighbours)
    assert SecondOrderLoss(0.7, neighbours)(anchors, positives).item() == pytest.approx(expected, abs=1e-5)


def test_gradients_are_finite_and_pull_pairs_together():
    torch.manual_seed(0)
    anchors = normalize(torch.randn(8, 16)).requires_grad_()
    positives = normalize(anchors.detach() + 0.5 * torch.randn(8, 16))
    sos_loss(anchors, positives).backward()
    assert anchors.grad.isfinite().all()
    moved = normalize(anchors.detach() - 0.05 * anchors.grad)
    assert sos_loss(moved, positives) < sos_loss(anchors, positives)


def test_the_second_order_term_of_equal_sets_is_zero():
    anchors = normalize(torch.eye(6))
    assert sos_loss(anchors, anchors).item() == pytest.approx(max(0.0, 1 + 1e-3 - math.sqrt(2)) ** 2, abs=1e-5)


def test_a_single_pair_is_refused():
    with pytest.raises(UserError, match="need at least 2 pairs"):
        sos_loss(torch.ones(1, 4), torch.ones(1, 4))
