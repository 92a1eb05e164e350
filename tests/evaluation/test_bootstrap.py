"""Paired resampling: against a slow loop, its coverage, and what pairing is for."""

import numpy as np
import pytest

from csametric.evaluation.bootstrap import fpr95_differences, interval, mean_differences
from csametric.evaluation.verification import fpr95


def test_equal_models_do_not_differ():
    values = np.random.default_rng(0).random((2, 50))
    assert np.all(mean_differences(values, values) == 0)
    is_match = np.arange(50) % 2 == 0
    assert np.all(fpr95_differences(values, values, is_match) == 0)


def test_a_constant_gain_is_certain_however_hard_the_queries_are():
    hardness = np.random.default_rng(0).random(200)
    np.testing.assert_allclose(mean_differences(hardness + 0.01, hardness), 0.01)


def test_means_agree_with_a_loop_over_drawn_queries():
    rng = np.random.default_rng(1)
    ours, theirs = rng.random((3, 40)), rng.random((2, 40))
    fast = mean_differences(ours, theirs, resamples=4000)
    slow = []
    for _ in range(4000):
        drawn = rng.integers(40, size=40)
        slow.append(ours[:, drawn].mean() - theirs[:, drawn].mean())
    assert fast.mean() == pytest.approx(np.mean(slow), abs=3e-3)
    assert fast.std() == pytest.approx(np.std(slow), rel=0.06)


def test_nineteen_intervals_in_twenty_hold_the_truth():
    rng, held = np.random.default_rng(2), 0
    for trial in range(200):
        ours, theirs = rng.normal(0.3, 1, 80), rng.normal(0, 1, 80)
        found = interval(float(ours.mean() - theirs.mean()), mean_differences(ours, theirs, seed=trial, resamples=300))
        held += found.low <= 0.3 <= found.high
    assert 0.9 <= held / 200 <= 0.99


def test_rates_of_pairs_differ_as_they_do_and_are_stratified():
    rng = np.random.default_rng(3)
    is_match = np.arange(600) % 3 == 0
    good, bad = np.where(is_match, 0.0, 2.0) + rng.normal(0, 0.6, (2, 600)), rng.random((1, 600))
    found = fpr95_differences(good, bad, is_match, resamples=50)
    truth = np.mean([fpr95(row, is_match) for row in good]) - fpr95(bad[0], is_match)
    assert found.mean() == pytest.approx(truth, abs=0.03)
    assert np.all(found < 0)


def test_different_queries_are_refused():
    with pytest.raises(ValueError, match="same queries"):
        mean_differences(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="same pairs"):
        fpr95_differences(np.zeros(3), np.zeros(4), np.zeros(3))
