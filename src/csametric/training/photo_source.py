"""Pairs of patches of photographs, as `training.descriptor_task` wants them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from csametric.data.cache import Progress
from csametric.data.photo_patches import PhotoPatches, check_held_out, open_photo_patches
from csametric.data.sampling import PairBatch, pair_batch, steps_per_epoch
from csametric.data.stereo import motorcycle_patches
from csametric.evaluation.descriptor_scores import curve_fpr95, score_descriptor
from csametric.inference.patches import Describe
from csametric.runs.experiment import DescriptorExperiment

CURVE_KEYPOINTS = 1000
CURVE_LEVEL = "hard"


def open_photo_pairs(experiment: DescriptorExperiment, processes: int, cache: Path | None, progress: Progress) -> "PhotoPairs":
    """The pairs, cut into the cache if they are not there.

    Raises:
        UserError: photographs that cannot be used, or too few for a batch.
    """
    patches = open_photo_patches(experiment.data, cache, progress)
    steps_per_epoch(len(patches.train), experiment.batch_size, processes)
    check_held_out(patches)
    return PhotoPairs(experiment, patches)


class PhotoPairs:
    """See `training.descriptor_task.PairSource`."""

    def __init__(self, experiment: DescriptorExperiment, patches: PhotoPatches) -> None:
        self.experiment, self.patches, self.steps = experiment, patches, experiment.steps

    def describe_data(self) -> dict[str, Any]:
        return {"train": self.patches.summary.train, "held_out": self.patches.summary.held_out}

    def announce(self) -> str:
        return str(self.patches.summary)

    def batch(self, step: int, rank: int, world_size: int) -> PairBatch:
        settings = {"batch_size": self.experiment.batch_size, "seed": self.experiment.seed}
        return pair_batch(self.patches.train, step, rank=rank, world_size=world_size, **settings)

    def curve(self, describe: Describe) -> dict[str, float]:
        return {"fpr95": curve_fpr95(describe, self.patches, CURVE_LEVEL, CURVE_KEYPOINTS)}

    def score(self, describe: Describe) -> dict[str, Any]:
        return asdict(score_descriptor(describe, self.patches, motorcycle_patches()))
