"""How good a descriptor is on what it never saw: held-out photographs at three levels, and a real stereo pair."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from csametric.data.keypoints import Keypoints, detect_keypoints, keypoint_patches
from csametric.data.photos import HELD_OUT_COLUMNS, PhotoPatches
from csametric.data.stereo import motorcycle
from csametric.distances import UNIT_EUCLIDEAN
from csametric.errors import UserError
from csametric.evaluation.matching import (
    StereoMatching,
    evaluate_patch_matching,
    evaluate_stereo_matching,
)
from csametric.evaluation.verification import fpr95

Describe = Callable[[NDArray], NDArray]
STEREO_KEYPOINTS = 5000
STEREO_SEPARATION = 0.5  # a point dropped in one photograph only would have lost its partner in the other


@dataclass(frozen=True, kw_only=True)
class LevelScores:
    """FPR95 of all pairs within a photograph, accuracy and average precision of matching; means over photographs."""

    fpr95: float
    accuracy: float
    average_precision: float


@dataclass(frozen=True, kw_only=True)
class StereoResult:
    """What was matched between the pair, for the table and the picture."""

    left: Keypoints
    right: Keypoints
    matching: StereoMatching


@dataclass(frozen=True, kw_only=True)
class StereoScores:
    """matches: mutual nearest neighbours of known disparity; correct: those within 3 px; precision: their share."""

    matches: int
    correct: int
    precision: float


@dataclass(frozen=True, kw_only=True)
class DescriptorScores:
    """The scores of each level by its name, and of the stereo pair."""

    levels: dict[str, LevelScores]
    stereo: StereoScores


def score(describe: Describe, patches: PhotoPatches) -> DescriptorScores:
    """All scores of a descriptor of patches, uint8 (K, 32, 32) -> (K, D) of unit length."""
    return DescriptorScores(levels=score_levels(describe, patches), stereo=stereo_scores(score_stereo(describe).matching))


def stereo_scores(matching: StereoMatching) -> StereoScores:
    """The numbers of a matching."""
    return StereoScores(matches=len(matching.matches), correct=matching.correct, precision=matching.precision)


def curve_fpr95(describe: Describe, patches: PhotoPatches, level: str, keypoints: int) -> float:
    """FPR95 at one level over evenly spread held-out keypoints: cheap enough to draw a curve of."""
    chosen = np.linspace(0, len(patches.held_out) - 1, min(keypoints, len(patches.held_out))).astype(int)
    columns = (0, HELD_OUT_COLUMNS.index(level))
    upright_KD, views_KD = (describe(patches.held_out[chosen, column]) for column in columns)
    return _score_level(upright_KD, views_KD, patches.held_out_photos[chosen]).fpr95


def score_levels(describe: Describe, patches: PhotoPatches) -> dict[str, LevelScores]:
    """Scores at each level of held-out views against the upright patches.

    Args:
        describe: uint8 (K, 32, 32) -> (K, D) of unit length.
    """
    columns = [describe(patches.held_out[:, column]) for column in range(len(HELD_OUT_COLUMNS))]
    photos = patches.held_out_photos
    return {
        level: _score_level(columns[0], columns[column], photos) for column, level in enumerate(HELD_OUT_COLUMNS) if column > 0
    }


def score_stereo(describe: Describe) -> StereoResult:
    """Mutual nearest neighbours of the motorcycle pair's keypoints, judged by the true disparity."""
    pair, (left, right) = motorcycle(), _stereo_keypoints()
    distances_NM = _distances(describe(keypoint_patches(pair.left, left)), describe(keypoint_patches(pair.right, right)))
    matching = evaluate_stereo_matching(distances_NM, left.centres, right.centres, pair.disparity)
    return StereoResult(left=left, right=right, matching=matching)


@cache
def _stereo_keypoints() -> tuple[Keypoints, Keypoints]:
    pair = motorcycle()
    left, right = (detect_keypoints(image, STEREO_KEYPOINTS, separation=STEREO_SEPARATION) for image in (pair.left, pair.right))
    return left, right


def check_held_out(patches: PhotoPatches) -> None:
    """Raises `UserError` where no held-out photograph has two keypoints to tell apart."""
    if max(patches.summary.held_out.values()) < 2:
        raise UserError("no held-out photograph has two keypoints to tell apart; add larger or more textured photographs")


def _score_level(upright_KD: NDArray, views_KD: NDArray, photos_K: NDArray) -> LevelScores:
    photos = [photo for photo, count in zip(*np.unique(photos_K, return_counts=True), strict=True) if count > 1]
    rates, matchings = [], []
    for photo in photos:
        distances_KK = _distances(upright_KD[photos_K == photo], views_KD[photos_K == photo])
        rates.append(fpr95(distances_KK.ravel(), np.eye(len(distances_KK)).ravel()))
        matchings.append(evaluate_patch_matching(distances_KK))
    return LevelScores(
        fpr95=float(np.mean(rates)),
        accuracy=float(np.mean([matching.accuracy for matching in matchings])),
        average_precision=float(np.mean([matching.average_precision for matching in matchings])),
    )


def _distances(a_ND: NDArray, b_MD: NDArray) -> NDArray:
    return UNIT_EUCLIDEAN.as_distance(torch.from_numpy(a_ND), torch.from_numpy(b_MD)).numpy()


def scores_from_dict(values: dict[str, Any]) -> DescriptorScores:
    """The scores of their `dataclasses.asdict`."""
    return DescriptorScores(
        levels={name: LevelScores(**level) for name, level in values["levels"].items()},
        stereo=StereoScores(**values["stereo"]),
    )
