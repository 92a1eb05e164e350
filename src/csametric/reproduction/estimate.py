"""How long runs will take on this machine, from a few measured steps of each kind of run."""

import json
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from csametric.data.brown import count_brown
from csametric.data.datasets import read_dataset
from csametric.data.records import hold_back
from csametric.data.sampling import PairBatch, image_steps_per_epoch
from csametric.files import write_text
from csametric.inference.engines import TorchEngine
from csametric.inference.patches import build_descriptor, make_embedder
from csametric.models.pcb import PCB
from csametric.reproduction.plan import Run
from csametric.runs.experiment import PATCH_LOSSES, BrownExperiment, Experiment, ReidExperiment
from csametric.runs.kinds import call, resolve
from csametric.training.descriptor_task import batch_loss
from csametric.training.machine import Machine, join_processes
from csametric.training.optimizer import descriptor_optimizer
from csametric.training.reid_task import ReidTask

PROBE_IMAGES = 8  # of a measured batch
ROUNDS = 2  # measured calls, after one that warms up
PACES = "paces.json"


@dataclass(frozen=True)
class Pace:
    """Seconds that one image, pair or patch takes."""

    train: float  # its share of a training step
    score: float  # its share of a forward pass that scores


@dataclass(frozen=True)
class Work:
    """What a run has left to do.

    Examples:
        >>> Work(train=1000, score=100).seconds(Pace(train=0.5, score=0.1))
        510.0
    """

    train: int  # images or pairs
    score: int  # images or patches

    def seconds(self, pace: Pace) -> float:
        """The time this work takes."""
        return self.train * pace.train + self.score * pace.score


@dataclass(frozen=True)
class Estimate:
    """What a run has left to do, and how long that takes on this machine."""

    run: Run
    is_collected: bool  # whether a finished copy was found elsewhere, so that nothing is left to do
    work: Work
    seconds: float


def estimate_runs(runs: Collection[Run], collected: Collection[Run], out: Path) -> Iterator[Estimate]:
    """Estimate runs one by one; measures a few steps of each kind of run that was not measured on this machine before.

    Args:
        runs: the runs to estimate.
        collected: those of which finished copies were found elsewhere.
        out: the folder that keeps the measurements, in `PACES`.
    """
    for run in runs:
        is_collected = run in collected
        work = Work(0, 0) if is_collected else work_left(run)
        seconds = work.seconds(pace_of(run, out / PACES)) if work.train or work.score else 0.0
        yield Estimate(run, is_collected, work, seconds)


def work_left(run: Run) -> Work:
    """Work remaining for a run; zero if it is finished."""
    if run.is_finished:
        return Work(0, 0)
    steps, score = call(run.experiment, "count_work", run.experiment)
    return Work(max(0, steps - run.steps_done) * run.experiment.batch_size, score)


def count_brown_work(experiment: BrownExperiment) -> tuple[int, int]:
    """The number of training steps of a run, and of patches that it scores."""
    steps = experiment.epochs * max(1, experiment.pairs_per_epoch // experiment.batch_size)
    return steps, 2 * sum(count_brown(experiment.data)["tests"].values())


def count_reid_work(experiment: ReidExperiment) -> tuple[int, int]:
    """The number of training steps of a run, and of images that it scores."""
    dataset = read_dataset(experiment.data.kind, experiment.data.path, experiment.data.camera_pattern)
    train = hold_back(dataset.train, experiment.data.calibration, experiment.seed).train
    steps = experiment.epochs * image_steps_per_epoch(len(train), experiment.batch_size, 1)
    return steps, len(dataset.query) + len(dataset.gallery)


def pace_of(run: Run, known: Path) -> Pace:
    """The pace of a run, measured once per machine and kind of run and kept in a file.

    Reading images is not counted, because threads do it ahead of time.

    Args:
        run: its model, image size and precision decide its kind.
        known: the JSON file of measured paces; created if missing.
    """
    machine = join_processes(run.experiment.precision)
    paces = json.loads(known.read_text()) if known.is_file() else {}
    key = _kind_key(run.experiment, machine)
    if key not in paces:
        paces[key] = asdict(call(run.experiment, "measure_pace", run.experiment, machine))
        write_text(known, json.dumps(paces, indent=1))
    return Pace(**paces[key])


def _kind_key(experiment: Experiment, machine: Machine) -> str:
    values = asdict(experiment)
    sizes = {name: values["data"][name] for name in ("height", "width") if name in values["data"]}
    model = {name: value for name, value in values["model"].items() if name not in ("pretrained", "start_from")}
    return json.dumps([str(machine.device), machine.precision.name, sizes, model])


def measure_reid(experiment: ReidExperiment, machine: Machine) -> Pace:
    """Measure a training step and the embedding of a batch, for re-identification."""
    batch_size = min(PROBE_IMAGES, experiment.batch_size)
    small = replace(experiment, batch_size=batch_size, model=replace(experiment.model, pretrained="none"))
    task = ReidTask(small, machine, read_dataset(experiment.data.kind, experiment.data.path, experiment.data.camera_pattern))
    model = task.build_model().to(machine.device)
    optimizer, batch = task.build_optimizer(model), task.batch(0)

    def step() -> None:
        task.loss(model, batch, machine).backward()
        optimizer.step()
        optimizer.zero_grad()

    def score() -> None:
        assert isinstance(model, PCB)
        TorchEngine(model, machine.device, machine.precision).embed(batch.images)

    return Pace(_seconds(step) / batch_size, _seconds(score) / batch_size)


def measure_brown(experiment: BrownExperiment, machine: Machine) -> Pace:
    """Measure a training step and the description of a batch, for patches."""
    model = build_descriptor(experiment.model).to(machine.device)
    optimizer = descriptor_optimizer(model, experiment.optimizer)
    patches = np.random.default_rng(0).integers(0, 256, (2, experiment.batch_size, 32, 32), np.uint8)
    batch = PairBatch(patches=patches, identities=np.arange(experiment.batch_size))
    describe = make_embedder(model, machine.device, machine.precision)

    def step() -> None:
        batch_loss(model, batch, resolve(PATCH_LOSSES[experiment.loss]), machine.device, machine.precision).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Pace(_seconds(step) / experiment.batch_size, _seconds(lambda: describe(patches[0])) / experiment.batch_size)


def _seconds(call: Callable[[], object]) -> float:
    """The shortest of `ROUNDS` calls, after one that warms up."""
    seconds = []
    for _ in range(1 + ROUNDS):
        started = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
