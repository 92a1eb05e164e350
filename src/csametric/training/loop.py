"""The training loop: an experiment in, a run folder out; killed anywhere, the same call goes on where it was."""

import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn

from csametric.data.loading import prefetch
from csametric.errors import DivergedError, explaining_full_disk
from csametric.files import lock_folder, write_text
from csametric.progress import data_progress, step_progress
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
from csametric.training.task import Task


def train(experiment: Experiment, folder: Path, cache: Path | None = None) -> None:
    """Train, or go on training, until the folder holds weights.safetensors and scores.json.

    Args:
        folder: the run's; created, or resumed where it holds this same experiment.
        cache: where patches are cached, as in `data.photo_patches.open_photo_patches`.

    Raises:
        UserError: the folder is another run's, the data cannot be used, the disk is full; `DivergedError`: training diverged;
            `BusyError`: another process trains into the folder.
    """
    with explaining_full_disk(folder, "free some room and give the same command again: it goes on from the last checkpoint"):
        keep_freed_memory()
        torch.backends.cudnn.deterministic = True
        machine = join_processes(experiment.precision, some_unused=experiment.has_unused_parameters)
        check_run_folder(folder, experiment)
        task = open_task(experiment, machine, cache)
        check_data(folder, task.describe_data())
        with lock_folder(folder) if machine.is_main else nullcontext():
            if not (folder / SCORES).exists():
                check_processes(folder, machine.world_size)
                _train(experiment, task, folder, machine)
        machine.accelerator.wait_for_everyone()


def open_task(experiment: Experiment, machine: Machine, cache: Path | None = None) -> Task:
    """The job of an experiment with its data open; the main process builds caches first."""
    unit = kind_of(experiment).cached_unit
    with machine.accelerator.main_process_first(), data_progress(machine.is_main, "cutting patches", unit) as progress:
        return call(experiment, "open_task", experiment, machine, cache, progress)


def _train(experiment: Experiment, task: Task, folder: Path, machine: Machine) -> None:
    torch.manual_seed(experiment.seed)
    model = task.build_model()
    optimizer = task.build_optimizer(model)
    if machine.is_main:
        write_text(folder / EXPERIMENT, to_json(experiment))
    first = load_checkpoint(folder, model, optimizer)
    if first == 0 and machine.is_main:
        task.check_files()
    network, optimizer = machine.accelerator.prepare(model, optimizer)
    environment = describe_environment(machine.device, machine.precision)
    environment |= {"processes": machine.world_size, "data": task.describe_data()}
    if first and machine.is_main:
        commits = [*read_commits(folder), environment["commit"]]
        environment["commit"] = ", ".join(dict.fromkeys(commits))
    writing = RunLog(folder, first, environment) if machine.is_main else nullcontext()
    announcement = f"{task.announce()}\narithmetic: {machine.precision.name}, {machine.precision.reason}"
    announcement += f"\ngoing on from step {first} of {task.steps}" if 0 < first < task.steps else ""
    bar = step_progress(f"training {experiment.recipe}", task.steps, first, announcement, enabled=machine.is_main)

    with writing as log, bar as progress:
        batches = prefetch(task.batch, range(first, task.steps))
        started = time.perf_counter()
        for step, batch in enumerate(batches, first):
            torch.manual_seed(_step_seed(experiment.seed, step, machine.rank))
            task.begin_step(model, optimizer, step)
            loss = task.loss(network, batch, machine)
            machine.accelerator.backward(loss)
            check_gradients(model, step, task.name_batch(batch))
            optimizer.step()
            optimizer.zero_grad()

            done = step + 1
            row: dict[str, float] = {"loss": loss.item(), **task.watch(model)}
            rate = experiment.batch_size * machine.world_size / (time.perf_counter() - started)
            row[f"{task.unit}_per_second"] = rate
            if _due(done, task.evaluate_every, task.steps):
                machine.share_buffers(model)
                row |= task.curve(model, machine)
            if log is not None:
                if experiment.attention_every and _due(done, experiment.attention_every, task.steps):
                    seen = task.look(model, machine)
                    row |= seen.numbers
                    log.write_look(done, seen)
                log.write(done, row)
                if _due(done, experiment.checkpoint_every, task.steps):
                    save_checkpoint(folder, done, model, optimizer)
            progress(done, f"loss {row['loss']:.3f}, {rate:.0f} {task.unit}/s")
            started = time.perf_counter()

    if machine.is_main:
        save_weights(folder / WEIGHTS, model)
    scores = task.score(model, machine)
    if machine.is_main:
        write_scores(folder, scores)


def _due(done: int, every: int, steps: int) -> bool:
    return done == steps or (every > 0 and done % every == 0)


def check_gradients(model: nn.Module, step: int, batch: str) -> None:
    """Raises `DivergedError`, with the step and the batch named, where a gradient is NaN or infinite."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if torch.nn.utils.get_total_norm(gradients.values()).isfinite():
        return
    broken = next((name for name, gradient in gradients.items() if not gradient.isfinite().all()), "all together")
    raise DivergedError(
        f"training diverged at step {step}: the gradient of {broken} is not finite ({batch}); "
        "lower optimizer.lr or optimizer.attention_lr"
    )


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])
