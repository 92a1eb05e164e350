"""Person re-identification as a task of the loop: PCB and RPP, their losses, evaluation on query and gallery."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn, optim

from csametric.data.datasets import dataset_root, read_dataset
from csametric.data.inspection import unreadable
from csametric.data.loading import ImageBatch, image_batch, in_batches, made_ahead, read_images
from csametric.data.records import Record, ReidDataset, number_identities, queries_without_match
from csametric.data.sampling import identity_batch, image_steps_per_epoch, shuffled_batch
from csametric.data.transforms import Augmentation
from csametric.distances import euclidean_distances
from csametric.errors import UserError
from csametric.evaluation.reid import evaluate_distances, evaluate_reid, nearest_entries
from csametric.evaluation.rerank import k_reciprocal_distances
from csametric.losses.parts import parts_loss
from csametric.losses.triplet import batch_hard_triplet_loss
from csametric.models.backbone import Normalization, normalization
from csametric.models.pcb import PCB
from csametric.models.weights import load_strictly, read_state
from csametric.training.checkpoint import WEIGHTS
from csametric.training.experiment import PCBSettings, ReidData, ReidExperiment
from csametric.training.looking import IMAGES, Look, look
from csametric.training.machine import Machine, autocast
from csametric.training.optimizer import reid_optimizer, scale_learning_rates, scheduled
from csametric.training.precision import Precision
from csametric.training.progress import counted

EMBED_BATCH = 64
RANKED_QUERIES, RANKED_LENGTH = 8, 10


def open_reid(experiment: ReidExperiment, machine: Machine) -> "ReidTask":
    """The task with its dataset read.

    Raises:
        UserError: a dataset that cannot be used, or too small for a batch.
    """
    dataset = read_dataset(experiment.data.kind, experiment.data.path)
    if not dataset.train:
        raise UserError(f"{dataset.name} has no images to train on; name one with a train split, or evaluate on this one")
    task = ReidTask(experiment, machine, dataset)
    task.batch_numbers(0)
    unmatched = queries_without_match(dataset, filters_cameras(dataset, experiment.data))
    if len(unmatched) == len(dataset.query):
        raise UserError("no query has a match in the gallery; check the identities, or --set data.camera_filter=false")
    return task


class ReidTask:
    """See `training.task.Task`."""

    unit = "images"

    def __init__(self, experiment: ReidExperiment, machine: Machine, dataset: ReidDataset) -> None:
        self.experiment, self.dataset = experiment, dataset
        self.rank, self.world_size = machine.rank, machine.world_size
        self.numbers = number_identities(dataset.train)
        self.classes = np.array([self.numbers[record.identity] for record in dataset.train])
        self.steps_per_epoch = image_steps_per_epoch(len(dataset.train), experiment.batch_size, machine.world_size)
        self.steps = experiment.epochs * self.steps_per_epoch
        self.evaluate_every = experiment.evaluate_every * self.steps_per_epoch

    def describe_data(self) -> dict[str, Any]:
        train = self.dataset.train
        return {"train": len(train), "identities": len(self.numbers), "digest": data_digest(train)}

    def announce(self) -> str:
        cold = self.experiment.model.refined and self.experiment.refine_from == 0 and not self.experiment.model.start_from
        warning = (
            "\nrefined parts begin without a trained PCB, which is known to collapse; set model.start_from" if cold else ""
        )
        return f"{self.dataset}{warning}"

    def check_files(self) -> None:
        broken = list(unreadable(self.dataset))
        if broken:
            data = self.experiment.data
            others = f" (and {len(broken) - 1} more: csametric data check {data.kind}:{data.path})" if len(broken) > 1 else ""
            raise UserError(f"{broken[0]}{others}")

    def build_model(self) -> nn.Module:
        return build_model(self.experiment.model, len(self.numbers))

    def build_optimizer(self, model: nn.Module) -> optim.Optimizer:
        begins = self.experiment.model
        return reid_optimizer(model, self.experiment.optimizer, begins.pretrained != "none" or begins.start_from != "")

    def begin_step(self, model: nn.Module, optimizer: optim.Optimizer, step: int) -> None:
        assert isinstance(model, PCB)
        epoch = step // self.steps_per_epoch
        scale_learning_rates(
            optimizer, scheduled(self.experiment.optimizer, step / self.steps_per_epoch, self.experiment.epochs)
        )
        model.refining = epoch >= self.experiment.refine_from
        if model.refinement is not None:
            since = epoch - self.experiment.refine_from
            train_only_parts(model, 0 <= since < self.experiment.freeze_epochs)

    def batch_numbers(self, step: int) -> NDArray:
        """The training images of a step by their number."""
        data, size, seed = self.experiment.data, self.experiment.batch_size, self.experiment.seed
        place = {"rank": self.rank, "world_size": self.world_size}
        if data.images_per_identity:
            return identity_batch(
                self.classes, step, batch_size=size, per_identity=data.images_per_identity, seed=seed, **place
            )
        return shuffled_batch(len(self.classes), step, batch_size=size, seed=seed, **place)

    def batch(self, step: int) -> ImageBatch:
        data, chosen = self.experiment.data, self.batch_numbers(step)
        return image_batch(
            [self.dataset.train[number] for number in chosen],
            self.classes[chosen],
            height=data.height,
            width=data.width,
            augmentation=Augmentation(flip=data.flip, pad=data.pad, erasing=data.erasing),
            seed=(self.experiment.seed, 2, step, self.rank),
        )

    def loss(self, network: nn.Module, batch: ImageBatch, machine: Machine) -> Tensor:
        model = machine.accelerator.unwrap_model(network)
        settings, ids = self.experiment.loss, torch.from_numpy(batch.classes).to(machine.device)
        with machine.autocast():
            out = network(to_network(batch.images, model.backbone.normalization, machine.device))
        loss = parts_loss(out.logits, out.auxiliary, ids, settings.supervision, settings.label_smoothing, settings.average)
        if settings.triplet > 0:
            loss = loss + settings.triplet * batch_hard_triplet_loss(out.features, ids, settings.margin)
        return loss

    def name_batch(self, batch: ImageBatch) -> str:
        return f"batch of {len(batch.records)} images, the first {', '.join(r.path.name for r in batch.records[:3])}"

    def watch(self, model: nn.Module) -> dict[str, float]:
        alphas = [(name, p) for name, p in model.named_parameters() if name.endswith("attention.alpha")]
        return {f"alpha{number}": alpha.item() for number, (_, alpha) in enumerate(alphas, 1)}

    def curve(self, model: nn.Module, machine: Machine) -> dict[str, float]:
        if not self.evaluate_every:
            return {}
        scores = self.score(model, machine)
        return {name: scores[name] for name in ("rank1", "map_step", "map_trapezoid")}

    def look(self, model: nn.Module, machine: Machine) -> Look:
        assert isinstance(model, PCB)
        chosen = np.linspace(0, len(self.dataset.query) - 1, min(IMAGES, len(self.dataset.query))).astype(int)
        records = [self.dataset.query[number] for number in chosen]
        images = read_images(records, self.experiment.data.height, self.experiment.data.width)
        return look(model, lambda images: embed_images(model, images, machine.device, machine.precision), images)

    def score(self, model: nn.Module, machine: Machine) -> dict[str, Any]:
        assert isinstance(model, PCB)
        return score_dataset(model, self.dataset, self.experiment.data, machine)


def data_digest(records: Sequence[Record]) -> str:
    """Sixteen hexadecimal digits of the names, identities and cameras of images."""
    images = [(record.path.name, record.identity, record.camera) for record in records]
    return hashlib.sha256(json.dumps(images).encode()).hexdigest()[:16]


def build_model(settings: PCBSettings, num_ids: int, trained: bool = False) -> PCB:
    """The model these settings describe, in channels_last, with the weights it begins with unless those of a run follow."""
    anew = trained or settings.start_from or settings.pretrained == "none"
    model = PCB(
        backbone=settings.backbone,
        num_ids=num_ids,
        parts=settings.parts,
        refined=settings.refined,
        attention=None if settings.attention == "none" else settings.attention,
        stages=settings.stages,
        maps=settings.maps,
        groups=settings.groups,
        deep_supervision=settings.deep_supervision,
        pretrained=None if anew else settings.pretrained,
        alpha=settings.alpha,
        learn_alpha=settings.learn_alpha,
        attention_norm=settings.attention_norm,
        shared_embedding=settings.shared_embedding,
        embedding=settings.embedding,
        feature=settings.feature,
        dropout=settings.dropout,
        plain_refinement=settings.plain_refinement,
    )
    model.backbone.normalization = normalization(settings.backbone, settings.pretrained)
    if settings.start_from and not trained:
        begin_with(model, Path(settings.start_from) / WEIGHTS)
    return model.to(memory_format=torch.channels_last)


def begin_with(model: PCB, weights: Path) -> None:
    """Take over a trained PCB: all of its weights; a refined model keeps its own new part classifier."""
    state = read_state(weights)
    new = {name: value for name, value in model.state_dict().items() if name.startswith("refinement.") and name not in state}
    load_strictly(model, state | new, weights)


def train_only_parts(model: PCB, only_parts: bool) -> None:
    """Freeze all but the part classifier, or free everything."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not only_parts or name.startswith("refinement."))


def to_network(images_NHW3: NDArray, normalization: Normalization, device: torch.device) -> Tensor:
    """uint8 (N, H, W, 3) to normalised fp32 (N, 3, H, W) in channels_last on the device."""
    images = torch.from_numpy(np.ascontiguousarray(images_NHW3)).to(device).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in normalization)
    return (images - mean) / deviation


@torch.inference_mode()
def embed_images(model: PCB, images_NHW3: NDArray, device: torch.device, precision: Precision, flip: bool = False) -> NDArray:
    """Features of images of the model's size, float32 (N, D); with flip the mean of an image's and its
    mirror image's, of unit length again.
    """
    training = model.training
    model.eval()
    images = to_network(images_NHW3, model.backbone.normalization, device)
    with autocast(device, precision):
        features = model(images).features
        if flip:
            both = features + model(images.flip(3)).features
            features = nn.functional.normalize(both.unflatten(1, (model.parts, -1)), dim=2).flatten(1)
    model.train(training)
    return features.float().cpu().numpy()


def embed_records(
    model: PCB, records: Sequence[Record], height: int, width: int, machine: Machine, flip: bool = False
) -> NDArray:
    """Features of image files, float32 (N, D), shared among the processes in whole batches; all of them get all."""
    batches = in_batches(records, EMBED_BATCH)
    each = -(-len(batches) // machine.world_size)
    own = batches[machine.rank * each : (machine.rank + 1) * each]
    images = counted(made_ahead(lambda batch: read_images(batch, height, width), own), "embedding", len(own), machine.is_main)
    features = [embed_images(model, batch, machine.device, machine.precision, flip) for batch in images]
    rows = np.concatenate(features) if features else np.zeros((0, model.dimensions), np.float32)
    return machine.gather_rows(rows, len(records))


def score_dataset(
    model: PCB, dataset: ReidDataset, data: ReidData, machine: Machine, flip: bool = False, rerank: bool = False
) -> dict[str, Any]:
    """Metrics of a model on query and gallery, and the ranked lists of some queries; arrays aside, ready for JSON.

    Args:
        data: the size of images, the camera filter, and where the dataset lies.
    """
    height, width = data.height, data.width
    query, gallery = (embed_records(model, split, height, width, machine, flip) for split in (dataset.query, dataset.gallery))
    camera_filter = filters_cameras(dataset, data)
    labels = (*_labels(dataset.query), *_labels(dataset.gallery))
    if rerank:
        distances = k_reciprocal_distances(query, gallery)
        metrics = evaluate_distances(distances, *labels, camera_filter=camera_filter)
    else:
        metrics = evaluate_reid(query, *labels[:2], gallery, *labels[2:], camera_filter=camera_filter)
    chosen = np.linspace(0, len(query) - 1, min(RANKED_QUERIES, len(query))).astype(int)
    shown = (
        distances[chosen] if rerank else euclidean_distances(torch.from_numpy(query[chosen]), torch.from_numpy(gallery)).numpy()
    )
    return {
        "dataset": dataset.name,
        "digest": data_digest([*dataset.query, *dataset.gallery]),
        "camera_filter": camera_filter,
        "flip": flip,
        "rerank": rerank,
        **{f"rank{k}": metrics.rank(k) for k in (1, 5, 10)},
        **{name: value for name, value in asdict(metrics).items() if name != "cmc"},
        "ranked": _ranked_lists(
            [dataset.query[number] for number in chosen],
            dataset.gallery,
            shown,
            camera_filter,
            dataset_root(data.kind, data.path),
        ),
    }


def filters_cameras(dataset: ReidDataset, data: ReidData) -> bool:
    """Whether gallery images of a query's identity and camera are left out: as set, and off where there is one camera only."""
    return data.camera_filter and dataset.has_several_cameras


def _labels(records: Sequence[Record]) -> tuple[list[int], list[int]]:
    return [record.identity for record in records], [record.camera for record in records]


def _ranked_lists(
    queries: Sequence[Record], gallery: Sequence[Record], distances_QG: NDArray, camera_filter: bool, root: Path
) -> list[dict[str, Any]]:
    """The nearest gallery images of queries: paths relative to the dataset, and which show the query's identity."""
    nearest = nearest_entries(distances_QG, *_labels(queries), *_labels(gallery), RANKED_LENGTH, camera_filter)
    return [
        {
            "query": os.path.relpath(record.path, root),
            "gallery": [os.path.relpath(gallery[entry].path, root) for entry in entries],
            "right": [gallery[entry].identity == record.identity for entry in entries],
        }
        for record, entries in zip(queries, nearest, strict=True)
    ]
