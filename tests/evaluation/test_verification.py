"""FPR95 and ROC against loops and answers worked by hand, ties included."""

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
        found = sum(m and d <= threshold for d, m in zip(distances, is_match, strict=True))
        if found * 100 >= 95 * matches:
            wrong = sum(not m and d <= threshold for d, m in zip(distances, is_match, strict=True))
            return wrong / (len(is_match) - matches)
    raise AssertionError


def test_worked_by_hand():
    """Twenty matches at 1..20: the 19th reaches 95 %; of four non-matches those at 18.5 and 19 lie at or below it."""
    distances = [*range(1, 21), 18.5, 19, 19.5, 30]
    assert fpr95(distances, [1] * 20 + [0] * 4) == 0.5


def test_not_all_of_the_recall_is_asked_for():
    """Of 20 matches the farthest may be missed; of 19 none may."""
    assert fpr95([*[1] * 19, 9, 5], [1] * 20 + [0]) == 0
    assert fpr95([*[1] * 18, 9, 5], [1] * 19 + [0]) == 1


cases = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60).filter(
    lambda pairs: 0 < sum(m for _, m in pairs) < len(pairs)
)


@given(cases, st.randoms())
def test_equals_loops_whatever_the_order(pairs, random):
    distances, is_match = [float(d) for d, _ in pairs], [m for _, m in pairs]
    assert fpr95(distances, is_match) == fpr95_by_loops(distances, is_match)
    random.shuffle(pairs)
    assert fpr95([d for d, _ in pairs], [m for _, m in pairs]) == fpr95_by_loops(distances, is_match)


@given(cases)
def test_a_monotone_rescaling_changes_nothing(pairs):
    distances, is_match = np.array([d for d, _ in pairs]), [m for _, m in pairs]
    assert fpr95(distances, is_match) == fpr95(np.exp(distances) - 5, is_match)


def test_tensors_are_taken():
    assert fpr95(torch.tensor([0.1, 0.9]), torch.tensor([True, False])) == 0.0


def test_roc_worked_by_hand():
    false_rates, true_rates = roc([1, 2, 2, 3], [1, 1, 0, 0])
    np.testing.assert_allclose(false_rates, [0, 0, 0.5, 1])
    np.testing.assert_allclose(true_rates, [0, 0.5, 1, 1])


def test_errors():
    for distances, is_match, words in (
        ([1.0, float("nan")], [1, 0], "NaN"),
        ([1.0, 2.0], [1, 1], "need both matches"),
        ([1.0, 2.0], [1], "share one shape"),
    ):
        with pytest.raises(ValueError, match=words):
            fpr95(distances, is_match)
