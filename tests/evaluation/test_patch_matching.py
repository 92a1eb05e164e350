"""Average precision, nearest-neighbour and stereo matching equal hand-computed values and loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csametric.evaluation.patch_matching import evaluate_patch_matching, evaluate_stereo_matching, mutual_nearest_neighbours
from csametric.evaluation.ranking import average_precision_trapezoid


def test_average_precision_equals_a_hand_computed_value():
    """Correct, wrong, correct of three positives: precisions 1, 1/2, 2/3 at recalls 1/3, 1/3, 2/3."""
    expected = (1 + 1) / 2 / 3 + (1 / 2 + 2 / 3) / 2 / 3
    assert average_precision_trapezoid([1, 2, 3], [1, 0, 1], positives=3) == pytest.approx(expected)
    assert average_precision_trapezoid([1, 2], [1, 1]) == 1
    assert average_precision_trapezoid([1, 2], [0, 0], positives=2) == 0


def test_wrong_entries_rank_first_among_equals():
    assert average_precision_trapezoid([1, 1], [1, 0]) == pytest.approx((0 + 1 / 2) / 2)


def average_precision_by_loops(pairs: list[tuple[int, bool]]) -> float:
    ranked = sorted(pairs)
    positives = sum(hit for _, hit in pairs)
    area, hits, recall, precision = 0.0, 0, 0.0, 1.0
    for rank, (_, hit) in enumerate(ranked, 1):
        hits += hit
        area += (hits / positives - recall) * (precision + hits / rank) / 2
        recall, precision = hits / positives, hits / rank
    return area


cases = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40).filter(lambda p: any(h for _, h in p))


@given(cases, st.randoms())
def test_average_precision_equals_loops_in_any_order(pairs, random):
    expected = average_precision_by_loops(pairs)
    random.shuffle(pairs)
    assert average_precision_trapezoid([d for d, _ in pairs], [h for _, h in pairs]) == pytest.approx(expected)


def test_patch_matching_equals_hand_computed_values():
    """Rows 0 and 2 match their partners; row 1 is nearer to 0. Ranked: 0 correct at .1, 1 wrong at .2, 2 correct at .3."""
    result = evaluate_patch_matching([[0.1, 0.9, 0.9], [0.2, 0.8, 0.9], [0.9, 0.9, 0.3]])
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.average_precision == pytest.approx(1 / 3 + (1 / 2 + 2 / 3) / 2 / 3)


def test_a_tie_with_a_wrong_target_counts_as_wrong():
    assert evaluate_patch_matching([[0.5, 0.5], [0.9, 0.1]]).accuracy == 0.5


def test_distances_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match=r"\(N, N\)"):
        evaluate_patch_matching([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])


def test_mutual_nearest_neighbours_equal_hand_computed_pairs():
    """0-1 and 2-0 are mutual; row 1 is nearest to column 1 but not the other way round."""
    distances = [[0.5, 0.1, 0.9], [0.6, 0.2, 0.7], [0.3, 0.8, 0.9]]
    np.testing.assert_array_equal(mutual_nearest_neighbours(distances), [[0, 1], [2, 0]])
    assert mutual_nearest_neighbours(np.empty((0, 3))).shape == (0, 2)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 1000))
def test_mutual_nearest_neighbours_equal_loops(rows, columns, seed):
    distances = np.random.default_rng(seed).random((rows, columns))
    expected = [
        (i, j)
        for i in range(rows)
        for j in range(columns)
        if distances[i, j] == distances[i].min() and distances[i, j] == distances[:, j].min()
    ]
    assert [tuple(pair) for pair in mutual_nearest_neighbours(distances)] == expected


def test_stereo_matches_are_judged_by_disparity():
    """Of three mutual matches one is exact, one is 4 px off, and the disparity of one is unknown."""
    disparity = np.full((10, 30), 5.0)
    disparity[:, 25:] = np.inf
    left = [(10, 2), (20, 5), (27, 7)]
    right = [(5, 2), (11, 5), (22, 7)]
    result = evaluate_stereo_matching(1 - np.eye(3), left, right, disparity)
    np.testing.assert_array_equal(result.matches, [[0, 0], [1, 1]])
    np.testing.assert_array_equal(result.is_correct, [True, False])
    assert (result.correct, result.precision) == (1, 0.5)
    assert evaluate_stereo_matching(1 - np.eye(3), left, right, disparity, tolerance=4).correct == 2


def test_stereo_precision_without_matches_is_nan():
    result = evaluate_stereo_matching(np.empty((0, 2)), np.empty((0, 2)), [(1, 1), (2, 2)], np.ones((4, 4)))
    assert result.correct == 0
    assert np.isnan(result.precision)
