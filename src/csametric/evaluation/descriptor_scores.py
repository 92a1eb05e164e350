"""Scores of a descriptor on patches it was not trained on: held-out photographs at several levels, and a stereo pair."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from csametric.distances import UNIT_EUCLIDEAN
from csametric.evaluation.patch_matching import StereoMatching, evaluate_patch_matching, evaluate_stereo_matching
from csametric.evaluation.verification import fpr95

Describe = Callable[[NDArray], NDArray]  # uint8 (K, 32, 32) -> float32 (K, D) of unit length


class HeldOutPatches(Protocol):
    """Patches of held-out photographs; `data.photo_patches.PhotoPatches` is one."""

    @property
    def held_out(self) -> NDArray:
        """uint8 (K, 1 + levels, 32, 32): for each keypoint its upright patch, then one view at each level."""

    @property
    def held_out_photos(self) -> NDArray:
        """(K,), the index of the photograph that each keypoint is in."""

    @property
    def levels(self) -> Sequence[str]:
        """The names of the levels, in the order of the views in `held_out`."""


class StereoPatches(Protocol):
    """Patches around the keypoints of a stereo pair; `data.stereo.StereoPatches` is one."""

    @property
    def left_patches(self) -> NDArray:
        """uint8 (N, 32, 32)."""

    @property
    def right_patches(self) -> NDArray:
        """uint8 (M, 32, 32)."""

    @property
    def left_centres(self) -> NDArray:
        """(N, 2), x and y in pixels."""

    @property
    def right_centres(self) -> NDArray:
        """(M, 2), x and y in pixels."""

    @property
    def disparity(self) -> NDArray:
        """(H, W) in pixels: (x, y) on the left is (x - d, y) on the right; inf if unknown."""


@dataclass(frozen=True, kw_only=True)
class LevelScores:
    """Scores at one level, averaged over photographs."""

    fpr95: float  # of all pairs within a photograph, in [0, 1], lower is better
    accuracy: float  # share of patches whose nearest neighbour shows the same keypoint, in [0, 1]
    average_precision: float  # of those matches, in [0, 1]


@dataclass(frozen=True, kw_only=True)
class StereoScores:
    """Scores on the stereo pair."""

    matches: int  # mutual nearest neighbours whose disparity is known
    correct: int  # those within 3 pixels of the true position
    precision: float  # correct / matches


@dataclass(frozen=True, kw_only=True)
class DescriptorScores:
    """All scores of a descriptor."""

    levels: dict[str, LevelScores]  # by the name of the level
    stereo: StereoScores


def score_descriptor(describe: Describe, patches: HeldOutPatches, stereo: StereoPatches) -> DescriptorScores:
    """Compute all scores of a descriptor."""
    return DescriptorScores(levels=score_levels(describe, patches), stereo=stereo_scores(match_stereo(describe, stereo)))


def score_levels(describe: Describe, patches: HeldOutPatches) -> dict[str, LevelScores]:
    """Score the views of held-out keypoints against their upright patches, by level."""
    upright_KD, *views = [describe(patches.held_out[:, column]) for column in range(1 + len(patches.levels))]
    return {
        level: _score_level(upright_KD, views_KD, patches.held_out_photos)
        for level, views_KD in zip(patches.levels, views, strict=True)
    }


def curve_fpr95(describe: Describe, patches: HeldOutPatches, level: str, keypoints: int) -> float:
    """FPR95 at one level over evenly spaced held-out keypoints, cheap enough to draw as a training curve."""
    total = len(patches.held_out)
    sample = np.linspace(0, total - 1, min(keypoints, total)).astype(int)
    columns = (0, 1 + patches.levels.index(level))
    upright_KD, views_KD = (describe(patches.held_out[sample, column]) for column in columns)
    return _score_level(upright_KD, views_KD, patches.held_out_photos[sample]).fpr95


def match_stereo(describe: Describe, stereo: StereoPatches) -> StereoMatching:
    """Match the keypoints of the stereo pair and judge the matches by the true disparity."""
    distances_NM = _distances(describe(stereo.left_patches), describe(stereo.right_patches))
    return evaluate_stereo_matching(distances_NM, stereo.left_centres, stereo.right_centres, stereo.disparity)


def stereo_scores(matching: StereoMatching) -> StereoScores:
    """The scores of a stereo matching."""
    return StereoScores(matches=len(matching.matches), correct=matching.correct, precision=matching.precision)


def scores_from_dict(values: dict[str, Any]) -> DescriptorScores:
    """The scores from the dictionary that `dataclasses.asdict` made of them."""
    return DescriptorScores(
        levels={name: LevelScores(**level) for name, level in values["levels"].items()},
        stereo=StereoScores(**values["stereo"]),
    )


def _score_level(upright_KD: NDArray, views_KD: NDArray, photos_K: NDArray) -> LevelScores:
    # a photograph with a single keypoint has no non-match
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
