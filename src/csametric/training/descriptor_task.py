"""Local descriptors as a task of the loop: pairs of patches, HardNet's, RALNet's and SOSNet's losses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn, optim

from csametric.data.cache import Progress
from csametric.data.sampling import PairBatch
from csametric.inference.patches import Describe, build_descriptor, embedder, prepare_patches
from csametric.losses.hardnet import hardnet_loss
from csametric.losses.ralnet import ral_loss
from csametric.losses.sosnet import sos_loss
from csametric.runs.experiment import BrownExperiment, DescriptorExperiment
from csametric.runs.precision import Precision, autocast
from csametric.training.attention_log import IMAGES, Look, look
from csametric.training.brown_source import open_brown_pairs
from csametric.training.machine import Machine, gather_with_gradients
from csametric.training.optimizer import descriptor_optimizer, linear_decay, scale_learning_rates
from csametric.training.photo_source import open_photo_pairs

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"hardnet": hardnet_loss, "ral": ral_loss, "sos": sos_loss}


class PairSource(Protocol):
    """Where pairs of patches come from, and what a descriptor is judged by. steps: of the whole run."""

    steps: int

    def describe_data(self) -> dict[str, Any]:
        """As `training.task.Task`."""

    def announce(self) -> str:
        """As `training.task.Task`."""

    def batch(self, step: int, rank: int, world_size: int) -> PairBatch:
        """One process's share of a step's batch; no identity twice in the whole batch."""

    def curve(self, describe: Describe) -> dict[str, float]:
        """Numbers to log now and then."""

    def score(self, describe: Describe) -> dict[str, Any]:
        """What the finished run writes to scores.json."""


def open_photo_descriptors(
    experiment: DescriptorExperiment, machine: Machine, cache: Path | None, progress: Progress
) -> "DescriptorTask":
    """Open the task on photographs, cutting their patches into the cache first if needed; raises as `open_photo_pairs`."""
    return DescriptorTask(experiment, machine, open_photo_pairs(experiment, machine.world_size, cache, progress))


def open_brown_descriptors(
    experiment: BrownExperiment, machine: Machine, cache: Path | None, progress: Progress
) -> "DescriptorTask":
    """Open the task on Brown, cutting its patches into the cache first if needed; raises as `open_brown_pairs`."""
    return DescriptorTask(experiment, machine, open_brown_pairs(experiment, machine.world_size, cache, progress))


class DescriptorTask:
    """See `training.task.Task`. Where there are several processes, each loss sees the descriptors of all of them."""

    unit = "pairs"

    def __init__(self, experiment: BrownExperiment | DescriptorExperiment, machine: Machine, source: PairSource) -> None:
        self.experiment, self.source = experiment, source
        self.rank, self.world_size = machine.rank, machine.world_size
        self.steps, self.evaluate_every = source.steps, experiment.evaluate_every

    def describe_data(self) -> dict[str, Any]:
        return self.source.describe_data()

    def announce(self) -> str:
        return self.source.announce()

    def check_files(self) -> None:
        """The cache was made of what could be read."""

    def build_model(self) -> nn.Module:
        return build_descriptor(self.experiment.model)

    def build_optimizer(self, model: nn.Module) -> optim.Optimizer:
        return descriptor_optimizer(model, self.experiment.optimizer)

    def begin_step(self, model: nn.Module, optimizer: optim.Optimizer, step: int) -> None:
        scale_learning_rates(optimizer, linear_decay(step, self.steps))

    def batch(self, step: int) -> PairBatch:
        return self.source.batch(step, self.rank, self.world_size)

    def loss(self, network: nn.Module, batch: PairBatch, machine: Machine) -> Tensor:
        return batch_loss(network, batch, LOSSES[self.experiment.loss], machine.device, machine.precision)

    def name_batch(self, batch: PairBatch) -> str:
        identities = ", ".join(str(identity) for identity in batch.identities[:4])
        return f"batch of {len(batch.identities)} keypoints {identities}, ..."

    def watch(self, model: nn.Module) -> dict[str, float]:
        alpha = getattr(model.get_submodule("attention"), "alpha", None)
        return {} if alpha is None else {"alpha": alpha.item()}

    def curve(self, model: nn.Module, machine: Machine) -> dict[str, float]:
        return self.source.curve(embedder(model, machine.device, machine.precision)) if machine.is_main else {}

    def look(self, model: nn.Module, machine: Machine) -> Look:
        patches = self.source.batch(0, 0, self.world_size).patches[0, :IMAGES]
        return look(model, embedder(model, machine.device, machine.precision), patches)

    def score(self, model: nn.Module, machine: Machine) -> dict[str, Any]:
        return self.source.score(embedder(model, machine.device, machine.precision)) if machine.is_main else {}


def batch_loss(
    network: nn.Module,
    batch: PairBatch,
    loss: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    precision: Precision,
) -> Tensor:
    """The loss of one batch: both patches of all pairs in one forward, the loss in fp32 over the pairs of all processes."""
    patches = prepare_patches(batch.patches.reshape(-1, *batch.patches.shape[2:]), device)
    with autocast(device, precision):
        described = network(patches)
    anchors, positives = (gather_with_gradients(half) for half in described.chunk(2))
    return loss(anchors, positives)
