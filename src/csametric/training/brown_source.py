"""Training pairs of Brown / UBC PhotoTour, a `PairSource` of `training.descriptor_task`: one subset trains, the others test."""

from pathlib import Path
from typing import Any

import numpy as np

from csametric.data.brown import SUBSETS, BrownSubset, LabelledPairs, TestSubsets, brown_root, open_brown_tests, read_brown
from csametric.data.cache import Progress
from csametric.data.sampling import PairBatch, index_points, point_batch
from csametric.evaluation.verification import fpr95, pair_distances
from csametric.inference.patches import Describe
from csametric.runs.experiment import BrownExperiment

INTERIM_PAIRS = 2000  # tested in the middle of a run


def open_brown_pairs(experiment: BrownExperiment, processes: int, cache: Path | None, progress: Progress) -> "BrownPairs":
    """Open the training and test subsets, cutting their patches into the cache first if needed.

    Args:
        experiment: names the dataset and the training subset.
        processes: number of processes that share a batch.
        cache: where patches are cached.
        progress: called with the sheets done and the sheets in total.

    Raises:
        UserError: the folder is not set, a subset cannot be read, none is left to test on, or the points are too few for a
            batch.
    """
    root = brown_root(experiment.data)
    train = read_brown(root / experiment.data.train, experiment.data.resampling, cache, progress)
    tests = open_brown_tests(experiment.data, [name for name in SUBSETS if name != experiment.data.train], cache, progress)
    pairs = BrownPairs(experiment, processes, train, tests)
    pairs.batch(0, 0, processes)  # raises if one batch cannot be filled
    return pairs


class BrownPairs:
    """Pairs of patches of the same 3-D point; see `training.descriptor_task.PairSource`."""

    def __init__(self, experiment: BrownExperiment, processes: int, train: BrownSubset, tests: TestSubsets) -> None:
        self.experiment, self.train, self.tests = experiment, train, tests
        self.index = index_points(train.points)
        self.steps = experiment.epochs * max(1, experiment.pairs_per_epoch // (experiment.batch_size * processes))

    def describe_data(self) -> dict[str, Any]:
        return {
            "train": len(self.train.patches),
            "tests": {name: len(pairs.is_match) for name, (_, pairs) in self.tests.items()},
        }

    def announcement(self) -> str:
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

    def interim_metrics(self, describe: Describe) -> dict[str, float]:
        subset, pairs = next(iter(self.tests.values()))
        indices = np.linspace(0, len(pairs.is_match) - 1, min(INTERIM_PAIRS, len(pairs.is_match))).astype(int)
        sample = LabelledPairs(patches=pairs.patches[indices], is_match=pairs.is_match[indices])
        return {"fpr95": fpr95(pair_distances(describe, subset.patches, sample.patches), sample.is_match)}

    def score(self, describe: Describe) -> dict[str, Any]:
        distances = {
            name: pair_distances(describe, subset.patches, pairs.patches) for name, (subset, pairs) in self.tests.items()
        }
        is_match = {name: pairs.is_match for name, (_, pairs) in self.tests.items()}
        return {
            "fpr95": {name: fpr95(distances[name], is_match[name]) for name in self.tests},
            **{f"distances_{name}": values for name, values in distances.items()},
            **{f"is_match_{name}": values for name, values in is_match.items()},
        }
