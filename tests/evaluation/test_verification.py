"""FPR95 and ROC equal loops and hand-computed values, with ties."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csametric import fpr95
from csametric.evaluation.verification import roc


def fpr95_by_loops(distances: list[float], is_match: list[bool]) -> float:
    matches = sum(is_match)
    for threshold in sorted(distances):
        accepted = sum(m and d <= threshold for d, m in zip(distances, is_match, strict=True))
        if accepted * 100 >= 95 * matches:
            false_positives = sum(not m and d <= threshold for d, m in zip(distances, is_match, strict=True))
            return false_positives / (len(is_match) - matches)
    raise AssertionError


def test_fpr95_equals_a_hand_computed_value():
    """Of 20 matches at 1..20 the 19th reaches 95 %; of four non-matches two, at 18.5 and 19, are at or below it."""
    distances = [*range(1, 21), 18.5, 19, 19.5, 30]
    assert fpr95(distances, [1] * 20 + [0] * 4) == 0.5


def test_fpr95_may_miss_one_match_in_twenty():
    """Of 20 matches the farthest may be missed; of 19 none may be."""
    assert fpr95([*[1] * 19, 9, 5], [1] * 20 + [0]) == 0
    assert fpr95([*[1] * 18, 9, 5], [1] * 19 + [0]) == 1


cases = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60).filter(
    lambda pairs: 0 < sum(m for _, m in pairs) < len(pairs)
)


@given(cases, st.randoms())
def test_fpr95_equals_loops_in_any_order(pairs, random):
    distances, is_match = [float(d) for d, _ in pairs], [m for _, m in pairs]
    assert fpr95(distances, is_match) == fpr95_by_loops(distances, is_match)
    random.shuffle(pairs)
    assert fpr95([d for d, _ in pairs], [m for _, m in pairs]) == fpr95_by_loops(distances, is_match)


@given(cases)
def test_fpr95_is_invariant_to_monotone_rescaling(pairs):
    distances, is_match = np.array([d for d, _ in pairs]), [m for _, m in pairs]
    assert fpr95(distances, is_match) == fpr95(np.exp(distances) - 5, is_match)


def test_tensors_are_accepted():
    assert fpr95(torch.tensor([0.1, 0.9]), torch.tensor([True, False])) == 0.0


def test_the_roc_curve_equals_hand_computed_rates():
    false_rates, true_rates = roc([1, 2, 2, 3], [1, 1, 0, 0])
    np.testing.assert_allclose(false_rates, [0, 0, 0.5, 1])
    np.testing.assert_allclose(true_rates, [0, 0.5, 1, 1])


def test_invalid_arguments_are_refused():
    for distances, is_match, message in (
        ([1.0, float("nan")], [1, 0], "NaN"),
        ([1.0, 2.0], [1, 1], "need both matches"),
        ([1.0, 2.0], [1], "share one shape"),
    ):
        with pytest.raises(ValueError, match=message):
            fpr95(distances, is_match)
