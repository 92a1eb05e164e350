"""HardNet's and RALNet's losses against loops and hand computations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csametric import hardnet_loss, ral_loss
from csametric.errors import UserError
from csametric.losses.hardnet import HardNetLoss, hardest_negatives
from csametric.losses.ralnet import RobustAngularLoss


def unit(*degrees: float) -> torch.Tensor:
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], 1)


def random_units(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 8, generator=generator, dtype=torch.float64), dim=1)


def hardest(distances: list[list[float]], i: int, duplicate_below: float) -> float:
    count = len(distances)
    row = [distances[i][j] for j in range(count) if j != i]
    column = [distances[j][i] for j in range(count) if j != i]
    return min(d + 10 if d < duplicate_below else d for d in row + column)


def hardnet_by_loops(a: torch.Tensor, p: torch.Tensor) -> float:
    count = len(a)
    d = [[math.sqrt(max(2 - 2 * float(a[i] @ p[j]), 0) + 1e-6) for j in range(count)] for i in range(count)]
    return sum(max(0, 1 + d[i][i] - hardest(d, i, 0.008)) for i in range(count)) / count


def ral_by_loops(a: torch.Tensor, p: torch.Tensor) -> float:
    count = len(a)
    d = [[max(2 * (1 - float(a[i] @ p[j])), 0) for j in range(count)] for i in range(count)]
    return sum(1 + math.tanh(d[i][i] - hardest(d, i, 6.4e-5)) for i in range(count)) / count


@settings(max_examples=50, deadline=None)
@given(count=st.integers(2, 9), seed=st.integers(0, 10**6), duplicated=st.booleans())
def test_losses_equal_loops(count, seed, duplicated):
    anchors, positives = random_units(count, seed), random_units(count, seed + 1)
    if duplicated:
        positives[0] = anchors[1]
    assert float(hardnet_loss(anchors, positives)) == pytest.approx(hardnet_by_loops(anchors, positives))
    assert float(ral_loss(anchors, positives)) == pytest.approx(ral_by_loops(anchors, positives))


def test_hardnet_loss_matches_a_hand_computation():
    """Anchors at 0 and 90 degrees, positives at 0 and 150: d_pos = 0 and 1, hardest negatives sqrt 2 for both."""
    loss = hardnet_loss(unit(0, 90), unit(0, 150))
    first = max(0, 1 + 0.001 - math.sqrt(2))
    second = 1 + 1 - math.sqrt(2)
    assert float(loss) == pytest.approx((first + second) / 2, abs=1e-5)


def test_ral_loss_matches_a_hand_computation():
    """The same points: d = 2(1 - cos) gives positives 0 and 1, hardest negatives 2."""
    loss = ral_loss(unit(0, 90), unit(0, 150))
    assert float(loss) == pytest.approx((1 + math.tanh(-2) + 1 + math.tanh(-1)) / 2)


def test_columns_are_mined_as_well_as_rows():
    distances = torch.tensor([[0.1, 0.9, 0.8], [0.3, 0.1, 0.7], [0.6, 0.5, 0.1]])
    torch.testing.assert_close(hardest_negatives(distances, 0.008), torch.tensor([0.3, 0.3, 0.5]))


def test_duplicates_are_not_negatives():
    distances = torch.tensor([[0.1, 0.007], [0.5, 0.1]])
    torch.testing.assert_close(hardest_negatives(distances, 0.008), torch.tensor([0.5, 0.5]))


def test_ral_loss_excludes_duplicates_below_the_square_of_hardnets_bound():
    """Descriptors 4 degrees apart, d = 0.0049, are negatives; 0.3 degrees apart, d = 2.7e-5, they are duplicates."""
    near = ral_loss(unit(0, 90), unit(94, 4))
    first, second, negative = (2 * (1 - math.cos(math.radians(angle))) for angle in (94, 86, 4))
    assert float(near) == pytest.approx(1 + (math.tanh(first - negative) + math.tanh(second - negative)) / 2)
    same = ral_loss(unit(0, 90), unit(90.3, 0.3))
    assert float(same) == pytest.approx(1 + math.tanh(2 - 10), abs=0.01)


@pytest.mark.parametrize("loss", [hardnet_loss, ral_loss])
def test_losses_do_not_depend_on_the_order_of_the_pairs(loss):
    anchors, positives = random_units(12, 0), random_units(12, 1)
    order = torch.randperm(12)
    torch.testing.assert_close(loss(anchors, positives), loss(anchors[order], positives[order]))


@pytest.mark.parametrize("loss", [hardnet_loss, ral_loss])
def test_losses_of_bf16_descriptors_are_computed_in_fp32(loss):
    anchors, positives = random_units(6, 0).bfloat16(), random_units(6, 1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(anchors, positives)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(anchors.float(), positives.float()))


@pytest.mark.parametrize("loss", [hardnet_loss, ral_loss])
def test_gradients_of_identical_pairs_are_finite(loss):
    anchors = random_units(4, 0).float().requires_grad_()
    loss(anchors, anchors).backward()
    assert anchors.grad.isfinite().all()


def test_modules_equal_their_functions():
    anchors, positives = random_units(5, 0), random_units(5, 1)
    assert torch.equal(HardNetLoss(0.5)(anchors, positives), hardnet_loss(anchors, positives, 0.5))
    assert torch.equal(RobustAngularLoss()(anchors, positives), ral_loss(anchors, positives))


@pytest.mark.parametrize("loss", [hardnet_loss, ral_loss])
def test_errors_say_what_to_do(loss):
    with pytest.raises(UserError, match=r"need at least 2 pairs .* got 1; use a larger batch"):
        loss(random_units(1, 0), random_units(1, 1))
    with pytest.raises(UserError, match=r"share one shape \(N, D\), got \(2, 8\) and \(3, 8\)"):
        loss(random_units(2, 0), random_units(3, 1))
