"""Training pairs from photographs: a `PairSource` of `training.descriptor_task`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from csametric.data.cache import Progress
from csametric.data.listing import Listing, describe_skipped, list_images
from csametric.data.photo_patches import PhotoPatches, check_held_out, open_photo_patches, photo_root
from csametric.data.sampling import PairBatch, pair_batch, steps_per_epoch
from csametric.data.stereo import motorcycle_patches
from csametric.evaluation.descriptor_scores import curve_fpr95, score_descriptor
from csametric.inference.patches import Describe
from csametric.runs.experiment import DescriptorExperiment

INTERIM_KEYPOINTS = 1000  # scored in the middle of a run
INTERIM_LEVEL = "hard"


def open_photo_pairs(experiment: DescriptorExperiment, processes: int, cache: Path | None, progress: Progress) -> "PhotoPairs":
    """Open the photographs, cutting their patches into the cache first if needed.

    Args:
        experiment: names the photographs.
        processes: number of processes that share a batch.
        cache: where patches are cached, as in `data.photo_patches.open_photo_patches`.
        progress: called with the photographs done and the photographs in total.

    Raises:
        UserError: the photographs cannot be used, or are too few for a batch.
    """
    patches = open_photo_patches(experiment.data, cache, progress)
    steps_per_epoch(len(patches.train), experiment.batch_size, processes)  # raises if one batch cannot be filled
    check_held_out(patches)
    return PhotoPairs(experiment, patches)


class PhotoPairs:
    """Pairs of views of keypoints in photographs; see `training.descriptor_task.PairSource`."""

    def __init__(self, experiment: DescriptorExperiment, patches: PhotoPatches) -> None:
        self.experiment, self.patches, self.steps = experiment, patches, experiment.steps

    def describe_data(self) -> dict[str, Any]:
        return {"train": self.patches.summary.train, "held_out": self.patches.summary.held_out}

    def announcement(self) -> str:
        root = photo_root(self.experiment.data)
        hidden = list_images(root).skipped if root.is_dir() else []
        notes = [f"note: {note}" for note in describe_skipped([Listing([], [], hidden)])]
        return "\n".join([str(self.patches.summary), *notes])

    def batch(self, step: int, rank: int, world_size: int) -> PairBatch:
        settings = {"batch_size": self.experiment.batch_size, "seed": self.experiment.seed}
        return pair_batch(self.patches.train, step, rank=rank, world_size=world_size, **settings)

    def interim_metrics(self, describe: Describe) -> dict[str, float]:
        return {"fpr95": curve_fpr95(describe, self.patches, INTERIM_LEVEL, INTERIM_KEYPOINTS)}

    def score(self, describe: Describe) -> dict[str, Any]:
        return asdict(score_descriptor(describe, self.patches, motorcycle_patches()))
