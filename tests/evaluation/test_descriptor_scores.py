"""Descriptor scores: a perfect descriptor and a constant one have known scores."""

import numpy as np
import pytest

from csametric.data.photo_patches import PhotoPatches, PhotoSummary
from csametric.data.stereo import motorcycle_patches
from csametric.evaluation import descriptor_scores


def numbered_patches(count: int) -> PhotoPatches:
    """Patches whose first pixel is the number of their keypoint."""
    held_out = np.zeros((count, 4, 32, 32), np.uint8)
    held_out[..., 0, 0] = np.arange(count)[:, None]
    photos = np.repeat([0, 1], [count // 2, count - count // 2])
    return PhotoPatches(
        train=held_out, held_out=held_out, held_out_photos=photos, summary=PhotoSummary(train={}, held_out={}, skipped={})
    )


def perfect(patches: np.ndarray) -> np.ndarray:
    return np.eye(60, dtype=np.float32)[patches[:, 0, 0]]


def constant(patches: np.ndarray) -> np.ndarray:
    return np.tile(np.float32([1, 0]), (len(patches), 1))


def test_a_perfect_descriptor_has_perfect_scores():
    for scores in descriptor_scores.score_levels(perfect, numbered_patches(60)).values():
        assert (scores.fpr95, scores.accuracy, scores.average_precision) == (0, 1, 1)
    assert descriptor_scores.curve_fpr95(perfect, numbered_patches(60), "hard", 20) == 0


def test_a_constant_descriptor_has_the_worst_scores():
    for scores in descriptor_scores.score_levels(constant, numbered_patches(60)).values():
        assert (scores.fpr95, scores.accuracy, scores.average_precision) == (1, 0, 0)


def test_scores_survive_conversion_to_a_dictionary():
    from dataclasses import asdict

    scores = descriptor_scores.DescriptorScores(
        levels=descriptor_scores.score_levels(perfect, numbered_patches(60)),
        stereo=descriptor_scores.StereoScores(matches=4, correct=3, precision=0.75),
    )
    assert descriptor_scores.scores_from_dict(asdict(scores)) == scores


def test_normalised_pixels_match_much_of_the_stereo_pair():

    def grey(patches):
        centred = patches.reshape(len(patches), -1).astype(np.float32)
        centred -= centred.mean(1, keepdims=True)
        return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)

    scores = descriptor_scores.stereo_scores(descriptor_scores.match_stereo(grey, motorcycle_patches()))
    assert scores.correct > 100
    assert scores.precision == pytest.approx(scores.correct / scores.matches)
