"""The runs that tables need: which, under what name, how they are trained, resumed, shared among processes and collected."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from csametric.data.datasets import read_dataset
from csametric.data.hpatches import PAIRS, splits
from csametric.errors import BusyError, FullDiskError, UserError
from csametric.inference import ImageEmbedder, PatchEmbedder, load
from csametric.reproduction.budgets import Budget, experiment_for
from csametric.reproduction.paper import LIBERTY, MEAN, PaperTable, Row
from csametric.reproduction.places import HPATCHES, MissingDataError, find_place
from csametric.training import checkpoint, loop
from csametric.training.brown_pairs import count_brown
from csametric.training.experiment import BrownExperiment, Experiment, ReidExperiment
from csametric.training.hpatches import describe_release, score_split
from csametric.training.machine import join_processes
from csametric.training.reid import data_digest, score_dataset

HPATCHES_SCORES, REPORT = "hpatches.json", "report.html"
TINY_PAIRS = 1000
NOT_OF_THE_RESULT = ("recipe", "checkpoint_every", "evaluate_every", "attention_every")
PLACES = ("path", "root")
_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training that figures of tables come from, and its folder. hpatches: the release, where it is scored on it too."""

    experiment: Experiment
    folder: Path
    hpatches: Path | None = None

    @property
    def is_finished(self) -> bool:
        """Whether all its scores are there."""
        wanted = [checkpoint.SCORES, checkpoint.EACH_SCORE, *([HPATCHES_SCORES] if self.hpatches else [])]
        return all((self.folder / name).is_file() for name in wanted)

    @property
    def steps_done(self) -> int:
        """As its log has them."""
        rows = checkpoint.read_metrics(self.folder) if (self.folder / checkpoint.METRICS).is_file() else []
        return int(rows[-1]["step"]) if rows else 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What some tables need.

    runs: by recipe, dataset and seed. missing: what to get where a dataset is not there, by its key.
    """

    budget: Budget
    seeds: int
    runs: Mapping[tuple[str, str, int], Run]
    missing: Mapping[str, str]

    def for_table(self, table: PaperTable) -> list[Run]:
        """The runs of a table, row by row."""
        wanted = set(trainings(table))
        return [run for (recipe, data, _), run in self.runs.items() if (recipe, data) in wanted]

    def without(self, runs: Collection[Run]) -> "Plan":
        """The plan less some runs, whose figures are not to be trusted."""
        return replace(self, runs={key: run for key, run in self.runs.items() if run not in runs})

    def of(self, row: Row, data: str) -> list[Run]:
        """The runs of a row on a dataset, one a seed; none where they cannot be had."""
        return [run for seed in range(self.seeds) if (run := self.runs.get((row.recipe or "", data, seed)))]


def make_plan(
    tables: Sequence[PaperTable], root: Path, out: Path, budget: Budget, seeds: int, weights: Path | None = None
) -> Plan:
    """The runs of tables, in their order, each once.

    Args:
        root: the folder of datasets. out: where runs go. weights: as in `budgets.experiment_for`.
    """
    places: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for data in dict.fromkeys(needed for table in tables for needed in data_of(table)):
        try:
            places[data] = find_place(root, data)
        except MissingDataError as error:
            missing[data] = str(error)
    with_hpatches = {row.recipe for table in tables if HPATCHES in data_of(table) for row in table.rows}
    runs: dict[tuple[str, str, int], Run] = {}
    for recipe, data in dict.fromkeys(pair for table in tables for pair in trainings(table)):
        scored_on = places.get(HPATCHES) if recipe in with_hpatches and data == LIBERTY else None
        for seed in range(seeds if data in places else 0):
            experiment = experiment_for(recipe, data, places[data], seed, budget, weights)
            folder = out / "runs" / f"{recipe}-{data}-seed{seed}-{settings_digest(experiment)}"
            runs[recipe, data, seed] = Run(experiment=experiment, folder=folder, hpatches=scored_on)
    return Plan(budget=budget, seeds=seeds, runs=runs, missing=missing)


def trainings(table: PaperTable) -> list[tuple[str, str]]:
    """The recipes of a table and the keys of the datasets that they train on."""
    sets = [data for data in data_of(table) if data != HPATCHES]
    return [(row.recipe, data) for row in table.rows if row.recipe is not None for data in sets]


def data_of(table: PaperTable) -> list[str]:
    """The keys of the datasets that a table's runs train on, and HPatches where they are scored on it."""
    trained_on = dict.fromkeys(column.data for column in table.columns if column.metric != MEAN and column.data)
    return [*trained_on, *([HPATCHES] if any(column.metric[0] == HPATCHES for column in table.columns) else [])]


def settings_digest(experiment: Experiment) -> str:
    """Twelve hexadecimal digits of all settings that the result depends on: not its name, nor where data and weights lie.

    Weights of a file count as ImageNet's.
    """
    values = {name: value for name, value in asdict(experiment).items() if name not in NOT_OF_THE_RESULT}
    values["data"] = {name: value for name, value in values["data"].items() if name not in PLACES}
    if values["model"].get("pretrained", "none") not in ("none", "wheel"):
        values["model"] = {**values["model"], "pretrained": "imagenet"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def carry_out(runs: Sequence[Run], budget: Budget, report: Callable[[Run], object]) -> dict[Run, str]:
    """Train, score and report what is not finished; a run that another process holds is left to it.

    Args:
        report: called for each run that has no report.html yet.

    Returns:
        Why some have failed: they diverged, a file is damaged, they were trained on other images.

    Raises:
        FullDiskError: nothing more can be written.
    """
    failed = {}
    for run in runs:
        try:
            _carry_out(run, budget)
            if not (run.folder / REPORT).is_file():
                report(run)
        except FullDiskError:
            raise
        except BusyError:
            continue
        except UserError as error:
            failed[run] = str(error)
    return failed


def _carry_out(run: Run, budget: Budget) -> None:
    if not (run.folder / checkpoint.SCORES).is_file():
        loop.train(run.experiment, run.folder)
    with checkpoint.claimed(run.folder):
        if not _is_scored_here(run):
            score_again(run)
        if run.hpatches and not (run.folder / HPATCHES_SCORES).is_file():
            score_hpatches(run, run.hpatches, TINY_PAIRS if budget == "tiny" else None)


def _is_scored_here(run: Run) -> bool:
    """Whether every query has its score, and queries and gallery were those that are here now.

    Raises:
        UserError: it was trained on other images than those that are here, or a file is damaged.
    """
    scores, each = checkpoint.read_scores(run.folder), checkpoint.read_each_score(run.folder)
    trained_on, experiment = checkpoint.read_environment(run.folder)["data"], run.experiment
    if isinstance(experiment, ReidExperiment):
        place = experiment.data.path
        train, test = _digests(experiment.data.kind, place)
        same_training, same_test = trained_on["digest"] == train, scores.get("digest") == test
    else:
        assert isinstance(experiment, BrownExperiment)
        place = experiment.data.root
        same_training, same_test = trained_on == count_brown(experiment.data), True
    if not same_training:
        raise UserError(f"{run.folder} was trained on other images than {place} has; remove it, or give another --out")
    return bool(each) and same_test


@cache
def _digests(kind: str, path: str) -> tuple[str, str]:
    """Of the images to train on, and of queries and gallery."""
    dataset = read_dataset(kind, path)
    return data_digest(dataset.train), data_digest([*dataset.query, *dataset.gallery])


def score_again(run: Run) -> None:
    """Score the weights of a run on the queries and gallery that are here.

    Raises:
        UserError: it is a descriptor, whose scores come from training alone.
    """
    model, experiment = load(run.folder), run.experiment
    if not isinstance(model, ImageEmbedder) or not isinstance(experiment, ReidExperiment):
        raise UserError(f"{run.folder} has no {checkpoint.EACH_SCORE}; remove the folder and it is trained again")
    dataset = read_dataset(experiment.data.kind, experiment.data.path)
    machine = join_processes(experiment.precision)
    checkpoint.write_scores(run.folder, score_dataset(model.model, dataset, experiment.data, machine))


def score_hpatches(run: Run, release: Path, pairs: int | None) -> None:
    """Write the published figure of each task on the split full, in [0, 1], null where its files are missing."""
    model = load(run.folder)
    assert isinstance(model, PatchEmbedder)
    names = splits()["full"]
    described = describe_release(release, names, model.describe)
    scores = score_split([described[name] for name in names], names, "full", release, pairs or PAIRS)
    means = {task: getattr(scores, f"{task}_mean") for task in ("verification", "matching", "retrieval")}
    checkpoint.write_text(run.folder / HPATCHES_SCORES, json.dumps(means, indent=1))


def collect(folders: Sequence[Path], runs: Sequence[Run], copy: bool = True) -> list[Run]:
    """Copy finished runs that were made elsewhere, found by their settings, to where they are wanted; which those were.

    Args:
        copy: whether to; otherwise they are only found.
    """
    wanted = {settings_digest(run.experiment): run for run in runs if not (run.folder / checkpoint.SCORES).is_file()}
    found = []
    for folder in _finished_runs(folders):
        run = wanted.pop(settings_digest(checkpoint.read_experiment(folder)), None)
        if run is not None:
            if copy:
                _copy(folder, run.folder)
            found.append(run)
    return found


def _finished_runs(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder} to collect runs from; correct the path")
        for path in sorted(folder.rglob(checkpoint.EXPERIMENT)):
            if (path.parent / checkpoint.SCORES).is_file() and (path.parent / checkpoint.WEIGHTS).is_file():
                yield path.parent


def _copy(source: Path, target: Path) -> None:
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(source, aside, ignore=shutil.ignore_patterns("state"))
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)


def stand_alone() -> None:
    """Leave torchrun's group, so that each process trains runs of its own on a GPU of its own.

    Which runs those are is settled by `training.checkpoint.claimed`: whoever comes first.
    """
    local = os.environ.get("LOCAL_RANK")
    for name in _TORCHRUN:
        os.environ.pop(name, None)
    if local is not None and torch.cuda.device_count():
        torch.cuda.set_device(int(local) % torch.cuda.device_count())


def seconds_trained(folder: Path) -> float:
    """What its steps took, by their logged rates."""
    experiment, processes = checkpoint.read_experiment(folder), checkpoint.read_environment(folder).get("processes", 1)
    rates = [
        next(value for name, value in row.items() if name.endswith("_per_second")) for row in checkpoint.read_metrics(folder)
    ]
    return float(np.sum(experiment.batch_size * processes / np.array(rates)))
