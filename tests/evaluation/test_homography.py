"""Scores of matches with known geometry equal answers worked by hand; areas equal fine sums."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csametric.evaluation.homography import areas_under_recall, corner_error, matching_accuracy, transfer_errors
from csametric.evaluation.pose import pose_error, rotation_error, translation_error

SHIFT = np.array([[1.0, 0, 3], [0, 1, 4], [0, 0, 1]])


def test_transfer_errors_and_accuracy_equal_hand_computed_values():
    errors = transfer_errors(SHIFT, [[0, 0], [10, 10], [5, 5]], [[3, 4], [13, 16], [8, 14]])
    np.testing.assert_allclose(errors, [0, 2, 5])
    np.testing.assert_allclose(matching_accuracy(errors, (1, 2, 4, 5)), [1 / 3, 2 / 3, 2 / 3, 1])
    assert matching_accuracy([], (1, 2)).tolist() == [0, 0]


def test_corner_errors_equal_hand_computed_values():
    assert corner_error(np.eye(3), SHIFT, 20, 10) == pytest.approx(5)
    assert corner_error(None, SHIFT, 20, 10) == np.inf
    assert corner_error(np.zeros((3, 3)), SHIFT, 20, 10) == np.inf


def test_the_area_under_recall_equals_a_hand_computed_value():
    """Recall rises from 0 to a half at 2 px and stays there: a triangle up to 2, then a rectangle."""
    assert areas_under_recall([2.0, np.inf], (4,))[0] == pytest.approx((0.5 * 2 / 2 + 0.5 * 2) / 4)
    assert areas_under_recall([0.0, 0.0], (3,))[0] == pytest.approx(1)
    assert areas_under_recall([np.inf], (3, 5)).tolist() == [0, 0]
    with pytest.raises(ValueError, match="need at least 1 error"):
        areas_under_recall([])


@given(st.lists(st.floats(0, 30), min_size=1, max_size=12))
def test_the_area_under_recall_equals_a_fine_sum(errors):
    x = np.linspace(0, 10, 20_001)
    known = np.concatenate([[0.0], np.sort(errors)])
    recall = np.interp(x, known, np.arange(len(known)) / len(errors))
    below = np.searchsorted(known, 10)  # the curve is constant from the last error below the threshold
    last = known[below - 1]
    recall[x > last] = (below - 1) / len(errors)
    assert areas_under_recall(errors, (10,))[0] == pytest.approx(recall.mean(), abs=2e-3)


def test_pose_errors_equal_hand_computed_values():
    quarter_turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert rotation_error(quarter_turn, np.eye(3)) == pytest.approx(90)
    assert translation_error([0, 0, 2], [0, 0, -1]) == pytest.approx(0)
    assert translation_error([1, 0, 0], [1, 1, 0]) == pytest.approx(45)
    assert translation_error([0, 0, 0], [1, 1, 0]) == 90
    assert pose_error(quarter_turn, [1, 0, 0], np.eye(3), [1, 1, 0]) == pytest.approx(90)
