"""Local descriptors as a task of the loop: patch pairs of photographs, HardNet's and RALNet's losses."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn, optim

from csametric.data.photos import PhotoPatches, Progress, open_photo_patches
from csametric.data.sampling import PairBatch, pair_batch, steps_per_epoch
from csametric.losses.hardnet import hardnet_loss
from csametric.losses.ralnet import ral_loss
from csametric.models.l2net import L2Net
from csametric.training import validation
from csametric.training.experiment import DescriptorExperiment, DescriptorSettings
from csametric.training.machine import Machine, autocast
from csametric.training.optimizer import descriptor_optimizer, linear_decay, scale_learning_rates
from csametric.training.precision import Precision

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"hardnet": hardnet_loss, "ral": ral_loss}
CURVE_KEYPOINTS = 1000
CURVE_LEVEL = "hard"
EMBED_BATCH = 512


def open_descriptors(
    experiment: DescriptorExperiment, machine: Machine, cache: Path | None, progress: Progress
) -> "DescriptorTask":
    """The task with its patches, cut into the cache if they are not there.

    Raises:
        UserError: photographs that cannot be used, or too few for a batch.
    """
    patches = open_photo_patches(experiment.data, cache, progress)
    steps_per_epoch(len(patches.train), experiment.batch_size, machine.world_size)
    validation.check_held_out(patches)
    return DescriptorTask(experiment, machine, patches)


class DescriptorTask:
    """See `training.task.Task`."""

    unit = "pairs"

    def __init__(self, experiment: DescriptorExperiment, machine: Machine, patches: PhotoPatches) -> None:
        self.experiment, self.patches = experiment, patches
        self.rank, self.world_size = machine.rank, machine.world_size
        self.steps, self.evaluate_every = experiment.steps, experiment.evaluate_every

    def describe_data(self) -> dict[str, Any]:
        return {"train": self.patches.summary.train, "held_out": self.patches.summary.held_out}

    def announce(self) -> str:
        return str(self.patches.summary)

    def check_files(self) -> None:
        """The cache was made of what could be read."""

    def build_model(self) -> nn.Module:
        return build_model(self.experiment.model)

    def build_optimizer(self, model: nn.Module) -> optim.Optimizer:
        return descriptor_optimizer(model, self.experiment.optimizer)

    def begin_step(self, model: nn.Module, optimizer: optim.Optimizer, step: int) -> None:
        scale_learning_rates(optimizer, linear_decay(step, self.steps))

    def batch(self, step: int) -> PairBatch:
        settings = {"batch_size": self.experiment.batch_size, "seed": self.experiment.seed}
        return pair_batch(self.patches.train, step, rank=self.rank, world_size=self.world_size, **settings)

    def loss(self, network: nn.Module, batch: PairBatch, machine: Machine) -> Tensor:
        return batch_loss(network, batch, LOSSES[self.experiment.loss], machine.device, machine.precision)

    def name_batch(self, batch: PairBatch) -> str:
        identities = ", ".join(str(identity) for identity in batch.identities[:4])
        return f"batch of {len(batch.identities)} keypoints {identities}, ..."

    def watch(self, model: nn.Module) -> dict[str, float]:
        alpha = getattr(model.get_submodule("attention"), "alpha", None)
        return {} if alpha is None else {"alpha": alpha.item()}

    def curve(self, model: nn.Module, machine: Machine) -> dict[str, float]:
        if not machine.is_main:
            return {}
        describe = embedder(model, machine.device, machine.precision)
        return {"fpr95": validation.curve_fpr95(describe, self.patches, CURVE_LEVEL, CURVE_KEYPOINTS)}

    def score(self, model: nn.Module, machine: Machine) -> dict[str, Any]:
        if not machine.is_main:
            return {}
        return asdict(validation.score(embedder(model, machine.device, machine.precision), self.patches))


def build_model(settings: DescriptorSettings) -> nn.Module:
    """The network these settings describe, in channels_last."""
    attention = None if settings.attention == "none" else settings.attention
    model = L2Net(attention, maps=settings.maps, dropout=settings.dropout)
    return model.to(memory_format=torch.channels_last)


def batch_loss(
    network: nn.Module,
    batch: PairBatch,
    loss: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    precision: Precision,
) -> Tensor:
    """The loss of one batch: both patches of all pairs in one forward, the loss itself in fp32."""
    patches = to_network(batch.patches.reshape(-1, *batch.patches.shape[2:]), device)
    with autocast(device, precision):
        described = network(patches)
    anchors, positives = described.chunk(2)
    return loss(anchors, positives)


def to_network(patches_KSS: NDArray, device: torch.device) -> Tensor:
    """uint8 (K, S, S) to fp32 (K, 1, S, S) on the device, grey values in [0, 255]."""
    return torch.from_numpy(np.ascontiguousarray(patches_KSS)).to(device).unsqueeze(1).float()


def embedder(model: nn.Module, device: torch.device, precision: Precision) -> validation.Describe:
    """The model as a function uint8 (K, S, S) -> float32 (K, D), in evaluation mode, a batch at a time."""

    @torch.inference_mode()
    def describe(patches_KSS: NDArray) -> NDArray:
        training = model.training
        model.eval()
        with autocast(device, precision):
            batches = [
                model(to_network(patches_KSS[start : start + EMBED_BATCH], device)).float().cpu()
                for start in range(0, max(len(patches_KSS), 1), EMBED_BATCH)
            ]
        model.train(training)
        return torch.cat(batches).numpy()

    return describe
