"""The loss of part-based models and the triplet loss, against loops and hand computations."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csametric.losses.parts import parts_loss
from csametric.losses.triplet import batch_hard_triplet_loss


def test_parts_loss_matches_a_hand_computation():
    """Two ids, even logits: each cross-entropy is ln 2, so three parts and two stages at lambda 0.5 give 4 ln 2."""
    even, ids = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
    torch.testing.assert_close(parts_loss([even] * 3, [even] * 2, ids, 0.5), torch.tensor(4 * math.log(2)))
    torch.testing.assert_close(parts_loss([even] * 3, [], ids), torch.tensor(3 * math.log(2)))
    torch.testing.assert_close(parts_loss([even] * 3, [even], ids, average=True), torch.tensor(2 * math.log(2)))


def test_label_smoothing_matches_a_hand_computation():
    """Logits (ln 3, 0) give probabilities 3/4 and 1/4; smoothing 0.2 weighs their logarithms by 0.9 and 0.1."""
    logits = torch.tensor([[math.log(3), 0.0]])
    expected = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    torch.testing.assert_close(parts_loss([logits], [], torch.tensor([0]), label_smoothing=0.2), torch.tensor(expected))


def test_the_loss_of_low_precision_logits_is_computed_in_fp32():
    logits = torch.randn(4, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert parts_loss([logits], [logits], torch.tensor([0, 1, 2, 0])).dtype == torch.float32


def triplet_by_loops(features, ids, margin):
    total = 0.0
    for i in range(len(ids)):
        distances = [math.sqrt(math.dist(features[i], other) ** 2 + 1e-6) for other in features]
        farthest = max(d for d, other in zip(distances, ids, strict=True) if other == ids[i])
        nearest = min(d for d, other in zip(distances, ids, strict=True) if other != ids[i])
        total += max(0.0, margin + farthest - nearest)
    return total / len(ids)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), margin=st.sampled_from([0.0, 0.3, 1.0]))
def test_triplet_loss_equals_loops(seed, margin):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    ids = [0, 0, 1, 1, 2, 2, 2, 3]
    loss = batch_hard_triplet_loss(features, torch.tensor(ids), margin)
    assert math.isclose(loss.item(), triplet_by_loops(features.tolist(), ids, margin), abs_tol=1e-5)


def test_triplet_gradients_of_equal_vectors_are_finite():
    features = torch.ones(4, 3, requires_grad=True)
    batch_hard_triplet_loss(features, torch.tensor([0, 0, 1, 1])).backward()
    assert features.grad.isfinite().all()
