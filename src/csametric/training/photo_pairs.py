"""Pairs of patches of photographs, as `training.descriptors` wants them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from csametric.data.cache import Progress
from csametric.data.photos import PhotoPatches, open_photo_patches
from csametric.data.sampling import PairBatch, pair_batch, steps_per_epoch
from csametric.training import validation
from csametric.training.experiment import DescriptorExperiment

CURVE_KEYPOINTS = 1000
CURVE_LEVEL = "hard"


def open_photo_pairs(experiment: DescriptorExperiment, processes: int, cache: Path | None, progress: Progress) -> "PhotoPairs":
    """The pairs, cut into the cache if they are not there.

    Raises:
        UserError: photographs that cannot be used, or too few for a batch.
    """
    patches = open_photo_patches(experiment.data, cache, progress)
    steps_per_epoch(len(patches.train), experiment.batch_size, processes)
    validation.check_held_out(patches)
    return PhotoPairs(experiment, patches)


class PhotoPairs:
    """See `training.descriptors.PairSource`."""

    def __init__(self, experiment: DescriptorExperiment, patches: PhotoPatches) -> None:
        self.experiment, self.patches, self.steps = experiment, patches, experiment.steps

    def describe_data(self) -> dict[str, Any]:
        return {"train": self.patches.summary.train, "held_out": self.patches.summary.held_out}

    def announce(self) -> str:
        return str(self.patches.summary)

    def batch(self, step: int, rank: int, world_size: int) -> PairBatch:
        settings = {"batch_size": self.experiment.batch_size, "seed": self.experiment.seed}
        return pair_batch(self.patches.train, step, rank=rank, world_size=world_size, **settings)

    def curve(self, describe: validation.Describe) -> dict[str, float]:
        return {"fpr95": validation.curve_fpr95(describe, self.patches, CURVE_LEVEL, CURVE_KEYPOINTS)}

    def score(self, describe: validation.Describe) -> dict[str, Any]:
        return asdict(validation.score(describe, self.patches))
