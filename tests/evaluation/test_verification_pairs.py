"""Pairs of labelled images and the error rates of thresholds on them, against slow loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csametric.errors import UserError
from csametric.evaluation import verification_pairs
from csametric.evaluation.verification_pairs import labelled_distances, measure_rates


def looped_pairs(features, identities, cameras):
    """Every pair but genuine ones of one camera, where there are several cameras."""
    several = cameras is not None and len(set(cameras)) > 1
    for i in range(len(features)):
        for j in range(i + 1, len(features)):
            same = identities[i] == identities[j]
            if same and several and cameras[i] == cameras[j]:
                continue
            yield np.linalg.norm(features[i] - features[j]), same, {identities[i], identities[j]}


def draw(seed, images, several_cameras):
    rng = np.random.default_rng(seed)
    identities = rng.integers(3, size=images).tolist()
    cameras = rng.integers(2 if several_cameras else 1, size=images).tolist()
    return rng.normal(size=(images, 4)).astype(np.float32), identities, cameras


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 14), st.booleans(), st.integers(1, 5))
def test_pairs_and_rates_agree_with_loops(seed, images, several_cameras, block):
    features, identities, cameras = draw(seed, images, several_cameras)
    expected = list(looped_pairs(features, identities, cameras))
    genuine = [distance for distance, same, _ in expected if same]
    impostor = [distance for distance, same, _ in expected if not same]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification_pairs, "BLOCK", block)
        if not genuine or not impostor:
            with pytest.raises(UserError, match="verification needs"):
                labelled_distances(features, identities, cameras)
            return
        labelled = labelled_distances(features, identities, cameras)
        thresholds = [1.0, 2.0, 3.0]
        rates = measure_rates(features, identities, thresholds, cameras)
    np.testing.assert_allclose(sorted(labelled.distances[labelled.is_same]), sorted(genuine), atol=1e-5)
    np.testing.assert_allclose(sorted(labelled.distances[~labelled.is_same]), sorted(impostor), atol=1e-5)
    names = np.unique(identities)
    owners = [set(names[pair].tolist()) for pair in labelled.identities]
    assert sorted(map(sorted, owners)) == sorted(sorted(owner) for _, _, owner in expected)
    for threshold, (fmr, fnmr) in zip(thresholds, rates, strict=True):
        assert fmr == pytest.approx(np.mean(np.array(impostor) <= threshold))
        assert fnmr == pytest.approx(np.mean(np.array(genuine) > threshold))


def test_whole_identities_are_drawn_from_many_images():
    features = np.random.default_rng(0).normal(size=(60, 3))
    identities = np.repeat(np.arange(20), 3)
    labelled = labelled_distances(features, identities, max_images=30)
    assert len(np.unique(labelled.identities)) == 10
    assert labelled.is_same.sum() == 10 * 3
    again = labelled_distances(features, identities, max_images=30)
    np.testing.assert_array_equal(labelled.distances, again.distances)


@pytest.mark.parametrize(
    ("identities", "cameras", "words"),
    [
        (["anna"] * 4, None, "needs images of several identities, got one"),
        (["anna", "anna", "bert", "bert"], [1, 1, 2, 2], "needs identities with two images from different cameras"),
        (["anna", "bert", "carl", "dora"], None, "needs identities with two images, got none"),
        (["anna", "bert"], None, r"must be \(N, D\) and \(N,\)"),
        (["anna", "anna", "bert", "bert"], [1, 2], "must have the same length"),
    ],
)
def test_images_without_pairs_are_refused(identities, cameras, words):
    with pytest.raises(UserError, match=words):
        labelled_distances(np.zeros((4, 2)), identities, cameras)
