"""Train person re-identification: PCB and RPP, their losses, evaluation on query and gallery."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn, optim

from csametric.data.cache import Progress
from csametric.data.datasets import read_dataset
from csametric.data.inspection import unreadable_files
from csametric.data.loading import ImageBatch, image_batch, read_images
from csametric.data.records import ReidDataset, count, data_digest, hold_back, number_identities, queries_without_match
from csametric.data.sampling import identity_batch, image_steps_per_epoch, shuffled_batch
from csametric.data.transforms import Augmentation
from csametric.errors import UserError
from csametric.inference.compact import CompactFeatures, fit_compact, images_to_fit, write_compact
from csametric.inference.engines import TorchEngine, prepare_images
from csametric.inference.images import build_pcb
from csametric.losses.parts import parts_loss
from csametric.losses.triplet import batch_hard_triplet_loss
from csametric.models.pcb import PCB
from csametric.runs.experiment import ReidExperiment
from csametric.runs.stored_calibration import StoredCalibration, write_calibration
from csametric.training.attention_log import IMAGES, AttentionSnapshot, snapshot_attention
from csametric.training.machine import Machine
from csametric.training.optimizer import reid_optimizer, scale_learning_rates, schedule_factor
from csametric.training.reid_calibration import calibrate_reid
from csametric.training.reid_scoring import embed_records, filters_cameras, score_dataset


def open_reid(
    experiment: ReidExperiment, machine: Machine, cache: Path | None = None, progress: Progress | None = None
) -> "ReidTask":
    """Open a task and list its dataset.

    Args:
        experiment: names the dataset.
        machine: the processes that share a batch.
        cache: unused; all kinds of experiment share this signature.
        progress: unused.

    Raises:
        UserError: the dataset cannot be used, or is too small for a batch.
    """
    dataset = read_dataset(experiment.data.kind, experiment.data.path, experiment.data.camera_pattern)
    if not dataset.train:
        raise UserError(f"{dataset.name} does not contain training images; use a dataset with a train split")
    task = ReidTask(experiment, machine, dataset)
    task.batch_indices(0)  # raises if one batch cannot be filled
    unmatched = queries_without_match(dataset, filters_cameras(dataset, experiment.data))
    if len(unmatched) == len(dataset.query):
        raise UserError("no query has a match in the gallery; check the identities, or set data.camera_filter=false")
    return task


class ReidTask:
    """Training of a PCB; see `training.task.Task`."""

    unit = "images"

    def __init__(self, experiment: ReidExperiment, machine: Machine, dataset: ReidDataset) -> None:
        self.experiment, self.dataset = experiment, dataset
        self._compact: CompactFeatures | None = None  # until training is done
        self.rank, self.world_size = machine.rank, machine.world_size
        self.train, self.held_back = hold_back(dataset.train, experiment.data.calibration, experiment.seed)
        self.class_of_identity = number_identities(self.train)
        self.classes = np.array([self.class_of_identity[record.identity] for record in self.train])
        self.steps_per_epoch = image_steps_per_epoch(len(self.train), experiment.batch_size, machine.world_size)
        self.steps = experiment.epochs * self.steps_per_epoch
        self.evaluate_every = experiment.evaluate_every * self.steps_per_epoch

    def describe_data(self) -> dict[str, Any]:
        data = {"train": len(self.train), "identities": len(self.class_of_identity), "digest": data_digest(self.dataset.train)}
        if self.held_back:
            data["calibration"] = [self.dataset.label(identity) for identity in number_identities(self.held_back)]
        return data

    def announcement(self) -> str:
        lines = [str(self.dataset)]
        if self.held_back:
            lines.append(f"held back from training, to calibrate verification: {count(self.held_back)}")
        settings = self.experiment.model
        if settings.start_from:
            taken = "the backbone and its attention; the heads start at random" if settings.new_heads else "all weights"
            lines.append(f"starting from {settings.start_from}: {taken}")
        if self.experiment.model.refined and self.experiment.refine_from == 0 and not self.experiment.model.start_from:
            lines.append("refined parts start without a trained PCB, which is known to collapse; set model.start_from")
        return "\n".join(lines)

    def check_files(self) -> None:
        broken = list(unreadable_files(self.dataset))
        if not broken:
            return
        message = str(broken[0])
        if len(broken) > 1:
            data = self.experiment.data
            message += f" (and {len(broken) - 1} more: csametric data check {data.kind}:{data.path})"
        raise UserError(message)

    def build_model(self) -> nn.Module:
        return build_pcb(self.experiment.model, len(self.class_of_identity))

    def build_optimizer(self, model: nn.Module) -> optim.Optimizer:
        settings = self.experiment.model
        has_weights = settings.pretrained != "none" or settings.start_from != ""
        return reid_optimizer(model, self.experiment.optimizer, pretrained=has_weights)

    def begin_step(self, model: nn.Module, optimizer: optim.Optimizer, step: int) -> None:
        assert isinstance(model, PCB)
        factor = schedule_factor(self.experiment.optimizer, step / self.steps_per_epoch, self.experiment.epochs)
        scale_learning_rates(optimizer, factor)
        epoch = step // self.steps_per_epoch
        model.refining = epoch >= self.experiment.refine_from
        if model.refinement is not None:
            epochs_refined = epoch - self.experiment.refine_from
            train_only_parts(model, 0 <= epochs_refined < self.experiment.freeze_epochs)

    def batch_indices(self, step: int) -> NDArray:
        """Choose the training images of a step, by their index in the train split."""
        data, size, seed = self.experiment.data, self.experiment.batch_size, self.experiment.seed
        place = {"rank": self.rank, "world_size": self.world_size}
        if data.images_per_identity:
            return identity_batch(
                self.classes, step, batch_size=size, per_identity=data.images_per_identity, seed=seed, **place
            )
        return shuffled_batch(len(self.classes), step, batch_size=size, seed=seed, **place)

    def batch(self, step: int) -> ImageBatch:
        data, indices = self.experiment.data, self.batch_indices(step)
        return image_batch(
            [self.train[index] for index in indices],
            self.classes[indices],
            height=data.height,
            width=data.width,
            augmentation=Augmentation(flip=data.flip, pad=data.pad, erasing=data.erasing),
            seed=(self.experiment.seed, 2, step, self.rank),
        )

    def loss(self, network: nn.Module, batch: ImageBatch, machine: Machine) -> Tensor:
        model = machine.accelerator.unwrap_model(network)
        settings, ids = self.experiment.loss, torch.from_numpy(batch.classes).to(machine.device)
        with machine.autocast():
            out = network(prepare_images(batch.images, model.backbone.normalization, machine.device))
        loss = parts_loss(out.logits, out.auxiliary, ids, settings.supervision, settings.label_smoothing, settings.average)
        if settings.triplet > 0:
            loss = loss + settings.triplet * batch_hard_triplet_loss(out.features, ids, settings.margin)
        return loss

    def describe_batch(self, batch: ImageBatch) -> str:
        return f"batch of {len(batch.records)} images, the first {', '.join(r.path.name for r in batch.records[:3])}"

    def step_metrics(self, model: nn.Module) -> dict[str, float]:
        alphas = [parameter for name, parameter in model.named_parameters() if name.endswith("attention.alpha")]
        return {f"alpha{number}": alpha.item() for number, alpha in enumerate(alphas, 1)}

    def interim_metrics(self, model: nn.Module, machine: Machine) -> dict[str, float]:
        if not self.evaluate_every:
            return {}
        scores = self.score(model, machine)
        return {name: scores[name] for name in ("rank1", "map_step", "map_trapezoid")}

    def snapshot_attention(self, model: nn.Module, machine: Machine) -> AttentionSnapshot:
        assert isinstance(model, PCB)
        query = self.dataset.query
        records = [query[index] for index in np.linspace(0, len(query) - 1, min(IMAGES, len(query))).astype(int)]
        images = read_images(records, self.experiment.data.height, self.experiment.data.width)
        return snapshot_attention(model, _engine(model, machine).embed, images)

    def score(self, model: nn.Module, machine: Machine) -> dict[str, Any]:
        assert isinstance(model, PCB)
        return score_dataset(_engine(model, machine), self.dataset, self.experiment.data, machine, compact=self._compact)

    def fit_embedding(self, model: nn.Module, machine: Machine, folder: Path) -> None:
        assert isinstance(model, PCB)
        data = self.experiment.data
        records = [self.train[index] for index in images_to_fit(len(self.train))]
        self._compact = fit_compact(embed_records(_engine(model, machine), records, data.height, data.width, machine))
        calibration = self._calibrate(model, machine)
        if machine.is_main:
            write_compact(folder, self._compact)
            if calibration is not None:
                write_calibration(folder, calibration)

    def _calibrate(self, model: PCB, machine: Machine) -> StoredCalibration | None:
        """Calibrate verification on the identities that were held back, if any were."""
        if not self.held_back:
            return None
        fitted_on = f"{count(self.held_back)} of {self.dataset.name}, held back from training"
        try:
            return calibrate_reid(_engine(model, machine), self.held_back, self.experiment.data, machine, fitted_on)
        except UserError as error:  # the run is finished and useful without it
            if machine.is_main:
                print(f"note: verification is not calibrated: {error}")
            return None


def _engine(model: PCB, machine: Machine) -> TorchEngine:
    return TorchEngine(model, machine.device, machine.precision)


def train_only_parts(model: PCB, only_parts: bool) -> None:
    """Freeze all parameters but those of the part classifier, or none of them."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not only_parts or name.startswith("refinement."))
