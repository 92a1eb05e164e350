"""Pairs of Brown / UBC PhotoTour, as `training.descriptor_task` wants them: train on one subset, test on the others."""

from pathlib import Path
from typing import Any

import numpy as np

from csametric.data.brown import SUBSETS, BrownSubset, LabelledPairs, Tests, brown_root, open_brown_tests, read_brown
from csametric.data.cache import Progress
from csametric.data.sampling import PairBatch, index_points, point_batch
from csametric.evaluation.verification import fpr95, pair_distances
from csametric.inference.patches import Describe
from csametric.runs.experiment import BrownExperiment

CURVE_PAIRS = 2000


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


class BrownPairs:
    """See `training.descriptor_task.PairSource`."""

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
        return {"fpr95": fpr95(pair_distances(describe, subset.patches, few.patches), few.is_match)}

    def score(self, describe: Describe) -> dict[str, Any]:
        distances = {
            name: pair_distances(describe, subset.patches, pairs.patches) for name, (subset, pairs) in self.tests.items()
        }
        is_match = {name: pairs.is_match for name, (_, pairs) in self.tests.items()}
        return {
            "fpr95": {name: fpr95(distances[name], is_match[name]) for name in self.tests},
            **{f"distances_{name}": each for name, each in distances.items()},
            **{f"is_match_{name}": each for name, each in is_match.items()},
        }
