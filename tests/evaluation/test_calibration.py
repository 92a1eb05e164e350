"""Thresholds, error rates and probabilities of verification, against answers worked by hand and slow loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from csametric.errors import UserError
from csametric.evaluation.calibration import calibrate_distances

GENUINE, IMPOSTOR = [0.1, 0.2, 0.3, 0.6], [0.25, 0.5, 0.7, 0.8, 0.9]
HAND = calibrate_distances([*GENUINE, *IMPOSTOR], [True] * 4 + [False] * 5)


def test_thresholds_by_hand():
    """A fifth of five impostors is one: the threshold lies between the first and the second impostor."""
    assert 0.25 <= HAND.threshold(0.2) < 0.5
    assert HAND.threshold(0.2) == pytest.approx(0.5)
    assert HAND.fnmr(0.2) == 0.25
    assert HAND.rates(0.25) == (0.2, 0.5)
    assert HAND.rates(0.6) == (0.4, 0.0)


def test_equal_error_rate_and_curve_by_hand():
    assert HAND.eer == pytest.approx((0.2 + 0.25) / 2)
    index = int(np.flatnonzero(HAND.det.thresholds == 0.3)[0])
    assert (HAND.det.fmr[index], HAND.det.fnmr[index]) == (0.2, 0.25)


def test_probabilities_by_hand():
    """With equal weights per class, pairs pool where genuine and impostor are out of order: 0.25 and 0.3, and 0.5 and 0.6."""
    genuine, impostor = 0.5 / 4, 0.5 / 5
    pooled = genuine / (genuine + impostor)
    expected = [1, 1, pooled, pooled, pooled, pooled, 0, 0, 0]
    np.testing.assert_allclose(HAND.probability([0.1, 0.2, 0.25, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9]), expected)
    assert HAND.probability(0.0) == 1
    assert HAND.probability(99.0) == 0
    assert HAND.probability(0.65) == pytest.approx(pooled / 2)


def test_the_prior_moves_probabilities_as_bayes_says():
    rare = calibrate_distances([*GENUINE, *IMPOSTOR], [True] * 4 + [False] * 5, prior=0.01)
    odds = (0.01 / 4) / (0.99 / 5)
    assert rare.probability(0.25) == pytest.approx(odds / (1 + odds))


def pairs(identities=60, images=3, seed=0, spread=0.6):
    """Distances between images of identities on a line of points, all pairs."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(identities, 8))
    features = (centres[:, None] + spread * rng.normal(size=(identities, images, 8))).reshape(-1, 8)
    owner = np.repeat(np.arange(identities), images)
    a, b = np.triu_indices(len(owner), 1)
    return np.linalg.norm(features[a] - features[b], axis=1), owner[a] == owner[b], np.stack([owner[a], owner[b]], 1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=3, max_size=40), st.integers(0, 2**32), st.sampled_from([0.1, 0.5, 0.9]))
def test_rates_agree_with_loops_and_ties_are_safe(values, seed, fmr):
    rng = np.random.default_rng(seed)
    same = rng.random(len(values)) < 0.5
    same[:2] = [True, False]
    calibration = calibrate_distances(values, same)
    impostors = [value for value, is_same in zip(values, same, strict=True) if not is_same]
    genuine = [value for value, is_same in zip(values, same, strict=True) if is_same]
    for threshold, own_fmr, own_fnmr in zip(*calibration.det, strict=True):
        assert own_fmr == pytest.approx(sum(value <= threshold for value in impostors) / len(impostors))
        assert own_fnmr == pytest.approx(sum(value > threshold for value in genuine) / len(genuine))
    if fmr * len(impostors) >= 1:
        assert calibration.rates(calibration.threshold(fmr))[0] <= fmr
        larger = [value for value in impostors if value > calibration.threshold(fmr)]
        assert sum(value <= min(larger) for value in impostors) > fmr * len(impostors)
    curve = calibration.probability(np.linspace(-1, 10, 200))
    assert (np.diff(curve) <= 1e-12).all()
    assert ((curve >= 0) & (curve <= 1)).all()


def test_the_order_of_pairs_and_a_rescaling_do_not_matter():
    distances, same, identities = pairs()
    shuffled = np.random.default_rng(1).permutation(len(distances))
    first = calibrate_distances(distances, same, identities)
    second = calibrate_distances(7 * distances[shuffled], same[shuffled], identities[shuffled])
    assert second.threshold(1e-2) == pytest.approx(7 * first.threshold(1e-2))
    assert second.eer == first.eer
    np.testing.assert_allclose(second.probability(7 * distances), first.probability(distances))


def test_intervals_by_identity_are_wider_than_by_pair_and_cover_the_truth():
    truth = calibrate_distances(*pairs(identities=600, images=2, seed=99)).threshold(1e-2)
    covered = []
    for seed in range(40):
        distances, same, identities = pairs(identities=40, seed=seed)
        interval = calibrate_distances(distances, same, identities).interval(1e-2)
        covered.append(interval.low <= truth <= interval.high)
    assert np.mean(covered) >= 0.8
    by_pair = calibrate_distances(distances, same).interval(1e-2)
    assert interval.high - interval.low > 1.5 * (by_pair.high - by_pair.low)


# Squared distances of the Gaussian points of `pairs` are chi-squared with 8 degrees of freedom, times these factors.
GENUINE_FACTOR, IMPOSTOR_FACTOR = 2 * 0.6**2, 2 * (1 + 0.6**2)


@pytest.mark.slow
@pytest.mark.parametrize(("identities", "fmr"), [(60, 1e-2), (80, 1e-3)])
def test_200_intervals_cover_the_threshold_in_closed_form(identities, fmr):
    threshold = np.sqrt(IMPOSTOR_FACTOR * chi2.ppf(fmr, 8))
    covered, fnmrs = [], []
    for seed in range(200):
        calibration = calibrate_distances(*pairs(identities, seed=seed))
        interval = calibration.interval(fmr)
        covered.append(interval.low <= threshold <= interval.high)
        fnmrs.append(calibration.fnmr(fmr))
    print(f"{identities} identities, FMR {fmr:g}: covered {np.mean(covered):.3f}")
    assert 0.92 <= np.mean(covered) <= 0.98
    assert np.mean(fnmrs) == pytest.approx(chi2.sf(threshold**2 / GENUINE_FACTOR, 8), abs=0.02)


@pytest.mark.slow
def test_200_probability_curves_have_a_calibration_error_of_at_most_2_percent():
    """The error is computed from the densities of distances, so that it holds no noise of test pairs."""
    distances = np.linspace(0, 12, 4001)
    genuine, impostor = (
        2 * distances * chi2.pdf(distances**2 / factor, 8) / factor for factor in (GENUINE_FACTOR, IMPOSTOR_FACTOR)
    )
    errors = []
    for seed in range(200):
        predicted = calibrate_distances(*pairs(200, images=3, seed=seed)).probability(distances)
        gaps = np.bincount((predicted * 14.99).astype(int), predicted * (genuine + impostor) - genuine)
        errors.append(np.abs(gaps).sum() / (genuine + impostor).sum())
    print(f"ECE {np.mean(errors):.4f}, 95 % below {np.percentile(errors, 95):.4f}")
    assert np.mean(errors) <= 0.02


def test_probabilities_are_calibrated_on_other_pairs():
    calibration = calibrate_distances(*pairs(identities=400, seed=1))
    distances, same, _ = pairs(identities=400, seed=2)
    assert calibration.calibration_error(distances, same) < 0.02
    assert calibration.calibration_error(distances + 1.0, same) > 0.1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0.1, 0.2], [True]), "must be lists of the same length"),
        (([0.1, np.nan], [True, False]), "NaN or infinite"),
        (([0.1, 0.2], [True, True]), "needs pairs of the same identity and pairs of different identities"),
        (([0.1, 0.2], [True, False], None, 1.0), r"prior must be in \(0, 1\), got 1.0"),
        (([0.1, 0.2], [True, False], [[1, 1]]), r"identities must be \(2, 2\), one row per pair, got \(1, 2\)"),
        (([0.1, 0.2], [True, False], [[1, 2], [1, 2]]), "identities contradict is_same in 1 pairs, first in row 0"),
    ],
)
def test_unusable_pairs_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        calibrate_distances(*arguments)


def test_a_rate_that_few_pairs_cannot_tell_is_refused():
    with pytest.raises(UserError, match=r"FMR 0.001 needs at least 1,000 impostor pairs, got 5; add pairs"):
        HAND.threshold()
    with pytest.raises(UserError, match=r"fmr must be in \(0, 1\), got 1"):
        HAND.threshold(1)
