"""Paired resampling equals a slow loop, and its intervals have the right coverage."""

import numpy as np
import pytest

from csametric.evaluation.bootstrap import fpr95_differences, interval, mean_differences
from csametric.evaluation.verification import fpr95


def test_identical_models_have_zero_difference():
    values = np.random.default_rng(0).random((2, 50))
    assert np.all(mean_differences(values, values) == 0)
    is_match = np.arange(50) % 2 == 0
    assert np.all(fpr95_differences(values, values, is_match) == 0)


def test_a_constant_gain_has_no_variance_whatever_the_queries():
    baseline = np.random.default_rng(0).random(200)
    np.testing.assert_allclose(mean_differences(baseline + 0.01, baseline), 0.01)


def test_mean_differences_agree_with_a_loop_over_resampled_queries():
    rng = np.random.default_rng(1)
    ours, theirs = rng.random((3, 40)), rng.random((2, 40))
    fast = mean_differences(ours, theirs, resamples=4000)
    slow = []
    for _ in range(4000):
        drawn = rng.integers(40, size=40)
        slow.append(ours[:, drawn].mean() - theirs[:, drawn].mean())
    assert fast.mean() == pytest.approx(np.mean(slow), abs=3e-3)
    assert fast.std() == pytest.approx(np.std(slow), rel=0.06)


def test_ninety_five_percent_of_intervals_contain_the_truth():
    rng, covered = np.random.default_rng(2), 0
    for trial in range(200):
        ours, theirs = rng.normal(0.3, 1, 80), rng.normal(0, 1, 80)
        result = interval(float(ours.mean() - theirs.mean()), mean_differences(ours, theirs, seed=trial, resamples=300))
        covered += result.low <= 0.3 <= result.high
    assert 0.9 <= covered / 200 <= 0.99


def test_fpr95_differences_are_centred_on_the_true_difference():
    rng = np.random.default_rng(3)
    is_match = np.arange(600) % 3 == 0
    good, bad = np.where(is_match, 0.0, 2.0) + rng.normal(0, 0.6, (2, 600)), rng.random((1, 600))
    differences = fpr95_differences(good, bad, is_match, resamples=50)
    truth = np.mean([fpr95(row, is_match) for row in good]) - fpr95(bad[0], is_match)
    assert differences.mean() == pytest.approx(truth, abs=0.03)
    assert np.all(differences < 0)


def test_models_with_different_queries_or_pairs_are_refused():
    with pytest.raises(ValueError, match="compare models on the same queries, got 3 and 4"):
        mean_differences(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="same pairs, got 3 distances, 4 of the baseline and 3 labels"):
        fpr95_differences(np.zeros(3), np.zeros(4), np.zeros(3))
    with pytest.raises(ValueError, match="same pairs, got 3 distances, 3 of the baseline and 4 labels"):
        fpr95_differences(np.zeros(3), np.zeros(3), np.zeros(4))
