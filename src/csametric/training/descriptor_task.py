"""Train local descriptors: pairs of patches with the losses of HardNet, RALNet and SOSNet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn, optim

from csametric.data.cache import Progress
from csametric.data.sampling import PairBatch
from csametric.inference.patches import Describe, build_descriptor, make_embedder, prepare_patches
from csametric.runs.experiment import PATCH_LOSSES, BrownExperiment, DescriptorExperiment
from csametric.runs.kinds import resolve
from csametric.runs.precision import Precision, autocast
from csametric.training.attention_log import IMAGES, AttentionSnapshot, snapshot_attention
from csametric.training.brown_source import open_brown_pairs
from csametric.training.machine import Machine, gather_with_gradients
from csametric.training.optimizer import descriptor_optimizer, linear_decay, scale_learning_rates
from csametric.training.photo_source import open_photo_pairs


class PairSource(Protocol):
    """A source of training pairs, together with the evaluation of descriptors trained on them."""

    steps: int  # of the whole run

    def describe_data(self) -> dict[str, Any]:
        """Describe the data, as `training.task.Task.describe_data` does."""

    def announcement(self) -> str:
        """Describe the data in words, as `training.task.Task.announcement` does."""

    def batch(self, step: int, rank: int, world_size: int) -> PairBatch:
        """Load one process's share of a batch; no identity appears twice in the whole batch."""

    def interim_metrics(self, describe: Describe) -> dict[str, float]:
        """Evaluate a descriptor in the middle of the run."""

    def score(self, describe: Describe) -> dict[str, Any]:
        """Evaluate the trained descriptor for scores.json."""


def open_photo_descriptors(
    experiment: DescriptorExperiment, machine: Machine, cache: Path | None, progress: Progress
) -> "DescriptorTask":
    """Open a task on photographs; arguments and exceptions as of `open_photo_pairs`."""
    return DescriptorTask(experiment, machine, open_photo_pairs(experiment, machine.world_size, cache, progress))


def open_brown_descriptors(
    experiment: BrownExperiment, machine: Machine, cache: Path | None, progress: Progress
) -> "DescriptorTask":
    """Open a task on Brown / UBC PhotoTour; arguments and exceptions as of `open_brown_pairs`."""
    return DescriptorTask(experiment, machine, open_brown_pairs(experiment, machine.world_size, cache, progress))


class DescriptorTask:
    """Training of a descriptor; see `training.task.Task`.

    With several processes, each computes the loss over the descriptors of all of them.
    """

    unit = "pairs"

    def __init__(self, experiment: BrownExperiment | DescriptorExperiment, machine: Machine, source: PairSource) -> None:
        self.experiment, self.source = experiment, source
        self.rank, self.world_size = machine.rank, machine.world_size
        self.steps, self.evaluate_every = source.steps, experiment.evaluate_every

    def describe_data(self) -> dict[str, Any]:
        return self.source.describe_data()

    def announcement(self) -> str:
        return self.source.announcement()

    def check_files(self) -> None:
        """Do nothing: building the cache has read all files already."""

    def build_model(self) -> nn.Module:
        return build_descriptor(self.experiment.model)

    def build_optimizer(self, model: nn.Module) -> optim.Optimizer:
        return descriptor_optimizer(model, self.experiment.optimizer)

    def begin_step(self, model: nn.Module, optimizer: optim.Optimizer, step: int) -> None:
        scale_learning_rates(optimizer, linear_decay(step, self.steps))

    def batch(self, step: int) -> PairBatch:
        return self.source.batch(step, self.rank, self.world_size)

    def loss(self, network: nn.Module, batch: PairBatch, machine: Machine) -> Tensor:
        return batch_loss(network, batch, resolve(PATCH_LOSSES[self.experiment.loss]), machine.device, machine.precision)

    def describe_batch(self, batch: PairBatch) -> str:
        identities = ", ".join(str(identity) for identity in batch.identities[:4])
        return f"batch of {len(batch.identities)} keypoints {identities}, ..."

    def step_metrics(self, model: nn.Module) -> dict[str, float]:
        alpha = getattr(model.get_submodule("attention"), "alpha", None)
        return {} if alpha is None else {"alpha": alpha.item()}

    def interim_metrics(self, model: nn.Module, machine: Machine) -> dict[str, float]:
        if not machine.is_main:
            return {}
        return self.source.interim_metrics(make_embedder(model, machine.device, machine.precision))

    def snapshot_attention(self, model: nn.Module, machine: Machine) -> AttentionSnapshot:
        patches = self.source.batch(0, 0, self.world_size).patches[0, :IMAGES]
        return snapshot_attention(model, make_embedder(model, machine.device, machine.precision), patches)

    def score(self, model: nn.Module, machine: Machine) -> dict[str, Any]:
        if not machine.is_main:
            return {}
        return self.source.score(make_embedder(model, machine.device, machine.precision))

    def fit_embedding(self, model: nn.Module, machine: Machine, folder: Path) -> None:
        """Do nothing: descriptors are small, and matches are decided by ratios of distances and the geometry."""


def batch_loss(
    network: nn.Module,
    batch: PairBatch,
    loss: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    precision: Precision,
) -> Tensor:
    """Compute the loss of a batch: one forward pass for both patches of all pairs, the loss in fp32 over all processes.

    Args:
        network: (2 K, 1, S, S) -> (2 K, D).
        batch: this process's share, patches (2, K, S, S).
        loss: (N, D), (N, D) -> scalar.
        device: of the network.
        precision: of the forward pass.

    Returns:
        A scalar.
    """
    patches = prepare_patches(batch.patches.reshape(-1, *batch.patches.shape[2:]), device)
    with autocast(device, precision):
        descriptors = network(patches)
    anchors, positives = (gather_with_gradients(half) for half in descriptors.chunk(2))
    return loss(anchors, positives)
