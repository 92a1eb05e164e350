"""Pairs of Brown / UBC PhotoTour, as `training.descriptors` wants them: train on one subset, test on the others."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from csametric.data.brown import SUBSETS, BrownSettings, BrownSubset, LabelledPairs, read_brown, read_points, read_test_pairs
from csametric.data.cache import Progress
from csametric.data.loading import in_batches
from csametric.data.sampling import PairBatch, index_points, point_batch
from csametric.distances import paired_distances
from csametric.errors import UserError
from csametric.evaluation.verification import fpr95
from csametric.training.experiment import BrownExperiment
from csametric.training.validation import Describe

CURVE_PAIRS = 2000
DESCRIBE_AT_ONCE = 8192

Tests = Mapping[str, tuple[BrownSubset, LabelledPairs]]


def open_brown_pairs(experiment: BrownExperiment, processes: int, cache: Path | None, progress: Progress) -> "BrownPairs":
    """The subset to train on and those to test on, cut into the cache if they are not there.

    Raises:
        UserError: no root, a subset that cannot be read, none to test on, or too few points for a batch.
    """
    root = brown_root(experiment.data)
    train = read_brown(root / experiment.data.train, experiment.data.resampling, cache, progress)
    tests = open_brown_tests(experiment.data, [name for name in SUBSETS if name != experiment.data.train], cache, progress)
    pairs = BrownPairs(experiment, processes, train, tests)
    pairs.batch(0, 0, processes)
    return pairs


def brown_root(settings: BrownSettings) -> Path:
    """The folder of the subsets.

    Raises:
        UserError: none is named, or it is not there.
    """
    if not settings.root:
        raise UserError("there is no dataset to train on; give --data brown:ROOT, the folder of liberty, notredame, yosemite")
    root = Path(settings.root).expanduser()
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; name the one that holds liberty, notredame and yosemite")
    if (root / "info.txt").is_file():
        raise UserError(f"{root} is a subset; name the folder above, {root.parent}")
    return root


def open_brown_tests(settings: BrownSettings, names: list[str], cache: Path | None, progress: Progress) -> Tests:
    """Of the named subsets those that are there, with their test pairs.

    Raises:
        UserError: none is there, or one cannot be read.
    """
    root = brown_root(settings)
    present = [name for name in names if (root / name).is_dir()]
    if not present:
        raise UserError(f"{root} holds none of {', '.join(names)} to test on; unpack one there")
    subsets = {name: read_brown(root / name, settings.resampling, cache, progress) for name in present}
    return {name: (subset, read_test_pairs(root / name, subset.points)) for name, subset in subsets.items()}


@functools.cache
def count_brown(settings: BrownSettings) -> dict[str, Any]:
    """What `BrownPairs.describe_data` says of the same settings, from the subsets' lists alone; each is read once.

    Raises:
        UserError: a list is missing or damaged.
    """
    root = brown_root(settings)
    tests = [root / name for name in SUBSETS if name != settings.train and (root / name).is_dir()]
    return {
        "train": len(read_points(root / settings.train)),
        "tests": {folder.name: len(read_test_pairs(folder, read_points(folder)).is_match) for folder in tests},
    }


class BrownPairs:
    """See `training.descriptors.PairSource`."""

    def __init__(self, experiment: BrownExperiment, processes: int, train: BrownSubset, tests: Tests) -> None:
        self.experiment, self.train, self.tests = experiment, train, tests
        self.index = index_points(train.points)
        self.steps = experiment.epochs * max(1, experiment.pairs_per_epoch // (experiment.batch_size * processes))

    def describe_data(self) -> dict[str, Any]:
        return {
            "train": len(self.train.patches),
            "tests": {name: len(pairs.is_match) for name, (_, pairs) in self.tests.items()},
        }

    def announce(self) -> str:
        tests = ", ".join(f"{name} ({len(pairs.is_match):,} pairs)" for name, (_, pairs) in self.tests.items())
        return f"{self.train}; tested on {tests}"

    def batch(self, step: int, rank: int, world_size: int) -> PairBatch:
        return point_batch(
            self.train.patches,
            self.index,
            step,
            batch_size=self.experiment.batch_size,
            seed=self.experiment.seed,
            rank=rank,
            world_size=world_size,
            turn=self.experiment.data.turn,
        )

    def curve(self, describe: Describe) -> dict[str, float]:
        subset, pairs = next(iter(self.tests.values()))
        chosen = np.linspace(0, len(pairs.is_match) - 1, min(CURVE_PAIRS, len(pairs.is_match))).astype(int)
        few = LabelledPairs(patches=pairs.patches[chosen], is_match=pairs.is_match[chosen])
        return {"fpr95": brown_fpr95(describe, subset, few)}

    def score(self, describe: Describe) -> dict[str, Any]:
        distances = {name: brown_distances(describe, *test) for name, test in self.tests.items()}
        is_match = {name: pairs.is_match for name, (_, pairs) in self.tests.items()}
        return {
            "fpr95": {name: fpr95(distances[name], is_match[name]) for name in self.tests},
            **{f"distances_{name}": each for name, each in distances.items()},
            **{f"is_match_{name}": each for name, each in is_match.items()},
        }


def brown_scores(describe: Describe, tests: Tests) -> dict[str, float]:
    """FPR95 of each subset by its name, in [0, 1]."""
    return {name: brown_fpr95(describe, subset, pairs) for name, (subset, pairs) in tests.items()}


def brown_fpr95(describe: Describe, subset: BrownSubset, pairs: LabelledPairs) -> float:
    """FPR95 of the pairs of a subset, in [0, 1] (Brown and Lowe 2007); arguments as in `brown_distances`."""
    return fpr95(brown_distances(describe, subset, pairs), pairs.is_match)


def brown_distances(describe: Describe, subset: BrownSubset, pairs: LabelledPairs) -> NDArray:
    """The distances of the pairs of a subset, float32 (M,).

    Args:
        describe: uint8 (K, 32, 32) -> (K, D) of unit length.
    """
    used, places_2M = np.unique(pairs.patches.T, return_inverse=True)
    parts = [describe(subset.patches[some]) for some in in_batches(used, DESCRIBE_AT_ONCE)]
    first, second = np.concatenate(parts)[places_2M.reshape(2, -1)]
    return paired_distances(torch.from_numpy(first), torch.from_numpy(second)).numpy()
