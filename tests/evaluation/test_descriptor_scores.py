"""Validation of a descriptor: a perfect and a blind one have known scores."""

import numpy as np
import pytest

from csametric.data.photo_patches import PhotoPatches, PhotoSummary
from csametric.data.stereo import motorcycle_patches
from csametric.evaluation import descriptor_scores


def patches_of(count: int) -> PhotoPatches:
    """Patches that say who they are: the grey value of the first pixels."""
    held_out = np.zeros((count, 4, 32, 32), np.uint8)
    held_out[..., 0, 0] = np.arange(count)[:, None]
    photos = np.repeat([0, 1], [count // 2, count - count // 2])
    return PhotoPatches(
        train=held_out, held_out=held_out, held_out_photos=photos, summary=PhotoSummary(train={}, held_out={}, skipped={})
    )


def knows_all(patches: np.ndarray) -> np.ndarray:
    return np.eye(60, dtype=np.float32)[patches[:, 0, 0]]


def knows_nothing(patches: np.ndarray) -> np.ndarray:
    return np.tile(np.float32([1, 0]), (len(patches), 1))


def test_a_perfect_descriptor():
    for scores in descriptor_scores.score_levels(knows_all, patches_of(60)).values():
        assert (scores.fpr95, scores.accuracy, scores.average_precision) == (0, 1, 1)
    assert descriptor_scores.curve_fpr95(knows_all, patches_of(60), "hard", 20) == 0


def test_a_blind_descriptor():
    for scores in descriptor_scores.score_levels(knows_nothing, patches_of(60)).values():
        assert (scores.fpr95, scores.accuracy, scores.average_precision) == (1, 0, 0)


def test_scores_survive_json():
    from dataclasses import asdict

    scores = descriptor_scores.DescriptorScores(
        levels=descriptor_scores.score_levels(knows_all, patches_of(60)),
        stereo=descriptor_scores.StereoScores(matches=4, correct=3, precision=0.75),
    )
    assert descriptor_scores.scores_from_dict(asdict(scores)) == scores


def test_stereo_scores_of_patches_as_they_are():
    """Raw normalised grey values already match much of the rectified pair."""

    def grey(patches):
        centred = patches.reshape(len(patches), -1).astype(np.float32)
        centred -= centred.mean(1, keepdims=True)
        return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)

    scores = descriptor_scores.stereo_scores(descriptor_scores.match_stereo(grey, motorcycle_patches()))
    assert scores.correct > 100
    assert scores.precision == pytest.approx(scores.correct / scores.matches)
