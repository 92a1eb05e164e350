"""The training loop: an experiment in, a run folder out; killed anywhere, the same call goes on where it was."""

import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from csametric.data.photos import PhotoPatches, open_photo_patches
from csametric.data.sampling import PairBatch, pair_batch, steps_per_epoch
from csametric.errors import UserError, explaining_full_disk
from csametric.losses.hardnet import hardnet_loss
from csametric.losses.ralnet import ral_loss
from csametric.models.l2net import L2Net
from csametric.training import checkpoint, validation
from csametric.training.environment import describe_environment
from csametric.training.experiment import DescriptorSettings, Experiment, to_json
from csametric.training.log import RunLog
from csametric.training.memory import keep_freed_memory
from csametric.training.optimizer import build_optimizer, set_learning_rates
from csametric.training.precision import Precision, choose_precision
from csametric.training.progress import photo_progress, step_progress

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"hardnet": hardnet_loss, "ral": ral_loss}
CURVE_KEYPOINTS = 1000
CURVE_LEVEL = "hard"
EMBED_BATCH = 512


def build_model(settings: DescriptorSettings) -> nn.Module:
    """The network these settings describe, in channels_last."""
    attention = None if settings.attention == "none" else settings.attention
    model = L2Net(attention, maps=settings.maps, dropout=settings.dropout)
    return model.to(memory_format=torch.channels_last)


def train(experiment: Experiment, folder: Path, cache: Path | None = None) -> None:
    """Train, or go on training, until the folder holds weights.safetensors and scores.json.

    Args:
        folder: the run's; created, or resumed where it holds this same experiment.
        cache: where patches are cached, as in `data.photos.open_photo_patches`.

    Raises:
        UserError: the folder is another run's, the data cannot be used, the disk is full, or training diverged.
    """
    with explaining_full_disk(folder, "free some room and give the same command again: it goes on from the last checkpoint"):
        keep_freed_memory()
        torch.backends.cudnn.deterministic = True
        accelerator = join_processes()
        checkpoint.check_run_folder(folder, experiment)
        showing = photo_progress(enabled=accelerator.is_main_process)
        with accelerator.main_process_first(), showing as progress:
            patches = open_photo_patches(experiment.data, cache, progress)
        checkpoint.check_photos(folder, patches.summary)
        steps_per_epoch(len(patches.train), experiment.batch_size, accelerator.num_processes)
        validation.check_held_out(patches)
        if not (folder / checkpoint.SCORES).exists():
            checkpoint.check_processes(folder, accelerator.num_processes)
            _train(experiment, folder, accelerator, patches)
        accelerator.wait_for_everyone()


def join_processes() -> Accelerator:
    """The device of this process and its place among those of torchrun; without a GPU they join by gloo."""
    return Accelerator(cpu="LOCAL_RANK" in os.environ and not torch.accelerator.is_available())


def _train(experiment: Experiment, folder: Path, accelerator: Accelerator, patches: PhotoPatches) -> None:
    precision = choose_precision(experiment.precision, accelerator.device)
    torch.manual_seed(experiment.seed)
    model = build_model(experiment.model)
    optimizer = build_optimizer(model, experiment.optimizer)
    if accelerator.is_main_process:
        checkpoint.write_text(folder / checkpoint.EXPERIMENT, to_json(experiment))
    first = checkpoint.load_checkpoint(folder, model, optimizer)
    network, optimizer = accelerator.prepare(model, optimizer)
    describe = embedder(model, accelerator.device, precision)
    environment = describe_environment(accelerator.device, precision) | {
        "processes": accelerator.num_processes,
        "data": asdict(patches.summary),
    }
    seed, rank, world_size = experiment.seed, accelerator.process_index, accelerator.num_processes
    writing = RunLog(folder, first, environment) if accelerator.is_main_process else nullcontext()
    announcement = f"{patches.summary}\narithmetic: {precision.name}, {precision.reason}"
    bar = step_progress(experiment, first, announcement, enabled=accelerator.is_main_process)

    with writing as log, bar as progress:
        for step in range(first, experiment.steps):
            started = time.perf_counter()
            set_learning_rates(optimizer, step, experiment.steps)
            torch.manual_seed(_step_seed(seed, step, rank))
            batch = pair_batch(
                patches.train, step, batch_size=experiment.batch_size, seed=seed, rank=rank, world_size=world_size
            )
            loss = batch_loss(network, batch, LOSSES[experiment.loss], accelerator.device, precision)
            accelerator.backward(loss)
            check_gradients(model, step, batch)
            optimizer.step()
            optimizer.zero_grad()

            done = step + 1
            row: dict[str, float] = {"loss": loss.item(), **_alpha(model)}
            row["pairs_per_second"] = experiment.batch_size * world_size / (time.perf_counter() - started)
            if log is not None:
                if _due(done, experiment.evaluate_every, experiment.steps):
                    row["fpr95"] = validation.curve_fpr95(describe, patches, CURVE_LEVEL, CURVE_KEYPOINTS)
                log.write(done, row)
                if _due(done, experiment.checkpoint_every, experiment.steps):
                    checkpoint.save_checkpoint(folder, done, model, optimizer)
            progress(done, row)

    if accelerator.is_main_process:
        checkpoint.save_weights(folder / checkpoint.WEIGHTS, model)
        scores = validation.score(describe, patches)
        checkpoint.write_text(folder / checkpoint.SCORES, json.dumps(asdict(scores), indent=1))


def _due(done: int, every: int, steps: int) -> bool:
    return done == steps or done % every == 0


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


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """bf16 autocast where the precision says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision.name == "bf16")


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


def check_gradients(model: nn.Module, step: int, batch: PairBatch) -> None:
    """Raises `UserError`, with the step and the batch named, where a gradient is NaN or infinite."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if torch.nn.utils.get_total_norm(gradients.values()).isfinite():
        return
    broken = next((name for name, gradient in gradients.items() if not gradient.isfinite().all()), "all together")
    identities = ", ".join(str(identity) for identity in batch.identities[:4])
    raise UserError(
        f"training diverged at step {step}: the gradient of {broken} is not finite "
        f"(batch of {len(batch.identities)} keypoints {identities}, ...); lower optimizer.lr or optimizer.attention_lr"
    )


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])


def _alpha(model: nn.Module) -> dict[str, float]:
    alpha = getattr(getattr(model, "attention", None), "alpha", None)
    return {} if alpha is None else {"alpha": alpha.item()}
