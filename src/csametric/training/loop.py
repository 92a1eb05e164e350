"""The training loop: trains an experiment into a run folder, and resumes it there after an interruption."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from csametric.data.loading import prefetch
from csametric.errors import DivergedError, StoppedError, explain_full_disk
from csametric.files import lock_folder, write_text
from csametric.progress import show_data_progress, step_progress
from csametric.runs.environment import describe_environment
from csametric.runs.experiment import Experiment
from csametric.runs.folder import (
    EXPERIMENT,
    SCORES,
    WEIGHTS,
    check_data,
    check_processes,
    check_run_folder,
    read_commits,
    save_weights,
    write_scores,
)
from csametric.runs.kinds import call, kind_of
from csametric.runs.overrides import to_json
from csametric.training.checkpoint import load_checkpoint, save_checkpoint
from csametric.training.log import RunLog
from csametric.training.machine import Machine, join_processes
from csametric.training.memory import keep_freed_memory
from csametric.training.stopping import stop_requests
from csametric.training.task import Task


def train(experiment: Experiment, folder: Path, cache: Path | None = None) -> None:
    """Train until the folder holds weights.safetensors and scores.json; resume from the last checkpoint if there is one.

    Args:
        experiment: what to train.
        folder: of the run; created if missing. An existing one must hold a run of the same experiment.
        cache: where patches are cached, as in `data.photo_patches.open_photo_patches`.

    Raises:
        DivergedError: a gradient is not finite.
        BusyError: another process is training into the folder.
        StoppedError: SIGINT or SIGTERM arrived; the step in progress was finished and saved.
        UserError: the folder belongs to another run, the data cannot be used, or the disk is full.
    """
    with explain_full_disk(folder, "free some space and train into the folder again: it resumes from the last checkpoint"):
        keep_freed_memory()
        torch.backends.cudnn.deterministic = True
        machine = join_processes(experiment.precision, has_unused_parameters=experiment.has_unused_parameters)
        check_run_folder(folder, experiment)
        task = open_task(experiment, machine, cache)
        check_data(folder, task.describe_data())
        with lock_folder(folder) if machine.is_main else nullcontext():
            if not (folder / SCORES).exists():
                check_processes(folder, machine.world_size)
                _train(experiment, task, folder, machine)
        machine.accelerator.wait_for_everyone()


def open_task(experiment: Experiment, machine: Machine, cache: Path | None = None) -> Task:
    """Open the data of an experiment; the main process builds caches before the others use them."""
    unit = kind_of(experiment).cached_unit
    with machine.accelerator.main_process_first(), show_data_progress(machine.is_main, "cutting patches", unit) as progress:
        return call(experiment, "open_task", experiment, machine, cache, progress)


def _train(experiment: Experiment, task: Task, folder: Path, machine: Machine) -> None:
    # The model and the optimizer as they were after the last checkpoint.
    torch.manual_seed(experiment.seed)
    model = task.build_model()
    optimizer = task.build_optimizer(model)
    if machine.is_main:
        write_text(folder / EXPERIMENT, to_json(experiment))
    first_step = load_checkpoint(folder, model, optimizer)
    if first_step == 0 and machine.is_main:
        task.check_files()
    network, optimizer = machine.accelerator.prepare(model, optimizer)

    # The steps that are left.
    environment = _describe_run(task, folder, machine, is_resumed=first_step > 0)
    log_context = RunLog(folder, first_step, environment) if machine.is_main else nullcontext()
    announcement = _announcement(task, machine, first_step)
    bar = step_progress(f"training {experiment.recipe}", task.steps, first_step, announcement, enabled=machine.is_main)
    with log_context as log, bar as progress, stop_requests() as stop:
        batches = prefetch(task.batch, range(first_step, task.steps))
        started = time.perf_counter()
        for step, batch in enumerate(batches, first_step):
            torch.manual_seed(_step_seed(experiment.seed, step, machine.rank))
            task.begin_step(model, optimizer, step)
            loss = task.loss(network, batch, machine)
            machine.accelerator.backward(loss)
            check_gradients(model, step, task.describe_batch(batch))
            optimizer.step()
            optimizer.zero_grad()

            done = step + 1
            row: dict[str, float] = {"loss": loss.item(), **task.step_metrics(model)}
            rate = experiment.batch_size * machine.world_size / (time.perf_counter() - started)
            row[f"{task.unit}_per_second"] = rate
            if _is_due(done, task.evaluate_every, task.steps):
                machine.share_buffers(model)
                row |= task.interim_metrics(model, machine)
            if log is not None:
                if experiment.attention_every and _is_due(done, experiment.attention_every, task.steps):
                    snapshot = task.snapshot_attention(model, machine)
                    row |= snapshot.numbers
                    log.write_attention(done, snapshot)
                log.write(done, row)
                if stop.signal_number or _is_due(done, experiment.checkpoint_every, task.steps):
                    save_checkpoint(folder, done, model, optimizer)
            progress(done, f"loss {row['loss']:.3f}, {rate:.0f} {task.unit}/s")
            if stop.signal_number:
                how = f"stopped by signal {stop.signal_number} at step {done:,} of {task.steps:,}"
                raise StoppedError(stop.signal_number, f"{how}; the same command goes on from there")
            started = time.perf_counter()

    # The results; every process takes part in scoring.
    if machine.is_main:
        save_weights(folder / WEIGHTS, model)
    task.fit_embedding(model, machine, folder)
    scores = task.score(model, machine)
    if machine.is_main:
        write_scores(folder, scores)


def _describe_run(task: Task, folder: Path, machine: Machine, is_resumed: bool) -> dict[str, Any]:
    """Describe the environment for environment.json; a resumed run keeps the commits that it was trained by before."""
    environment = describe_environment(machine.device, machine.precision)
    environment |= {"processes": machine.world_size, "data": task.describe_data()}
    if is_resumed and machine.is_main:
        commits = [*read_commits(folder), environment["commit"]]
        environment["commit"] = ", ".join(dict.fromkeys(commits))
    return environment


def _announcement(task: Task, machine: Machine, first_step: int) -> str:
    lines = [task.announcement(), f"arithmetic: {machine.precision.name}, {machine.precision.reason}"]
    if 0 < first_step < task.steps:
        lines.append(f"resuming at step {first_step} of {task.steps}")
    return "\n".join(lines)


def _is_due(done: int, every: int, steps: int) -> bool:
    return done == steps or (every > 0 and done % every == 0)


def check_gradients(model: nn.Module, step: int, batch: str) -> None:
    """Check that all gradients are finite.

    Args:
        model: after the backward pass.
        step: for the error message.
        batch: a description of the batch, for the error message.

    Raises:
        DivergedError: a gradient is NaN or infinite.
    """
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if torch.nn.utils.get_total_norm(gradients.values()).isfinite():
        return
    diverged = next((name for name, gradient in gradients.items() if not gradient.isfinite().all()), "all parameters together")
    raise DivergedError(
        f"training diverged at step {step}: the gradient of {diverged} is not finite ({batch}); "
        "lower optimizer.lr or optimizer.attention_lr"
    )


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])
