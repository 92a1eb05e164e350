"""Runs carried out: trained, scored on what is here, reported, and shared among processes."""

import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from csametric.data.brown import count_brown
from csametric.data.datasets import dataset_root, read_dataset
from csametric.data.hpatches import PAIRS, RETRIEVAL_FILES, VERIFICATION_FILES, find_task_file, splits
from csametric.data.records import data_digest
from csametric.errors import BusyError, FullDiskError, UserError
from csametric.files import lock_folder, write_text
from csametric.inference.images import ImageEmbedder
from csametric.inference.load import load
from csametric.inference.patches import PatchEmbedder
from csametric.reports.hpatches_scores import describe_release, score_split
from csametric.reports.run_report import report_run
from csametric.reproduction.budgets import Budget
from csametric.reproduction.plan import HPATCHES_SCORES, Run, settings_digest
from csametric.runs.experiment import BrownExperiment, Experiment, ReidExperiment
from csametric.runs.folder import (
    EACH_SCORE,
    EXPERIMENT,
    SCORES,
    read_each_score,
    read_environment,
    read_experiment,
    read_metrics,
    read_scores,
    write_scores,
)
from csametric.runs.kinds import call
from csametric.runs.overrides import to_json
from csametric.training import loop
from csametric.training.machine import join_processes
from csametric.training.reid_scoring import score_dataset

REPORT = "report.html"
TINY_PAIRS = 1000
_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


def execute_runs(runs: Sequence[Run], budget: Budget) -> dict[Run, str]:
    """Train, score and report what is not finished; a run that another process holds is left to it.

    Returns:
        Why some have failed: they diverged, did not fit into memory, a file is damaged, they were trained on other images.

    Raises:
        FullDiskError: nothing more can be written.
    """
    failed = {}
    for run in runs:
        try:
            _execute(run, budget)
        except FullDiskError:
            raise
        except BusyError:
            continue
        except UserError as error:
            failed[run] = str(error)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            failed[run] = f"{run.folder.name} does not fit into the GPU's memory; run it on a larger one and collect it"
    return failed


def _execute(run: Run, budget: Budget) -> None:
    with lock_folder(run.folder):
        _adopt(run)
    if not (run.folder / SCORES).is_file():
        loop.train(run.experiment, run.folder)
    with lock_folder(run.folder):
        if not _is_scored_here(run):
            score_again(run)
        if run.hpatches and not _is_scored_on(run.hpatches, run.folder / HPATCHES_SCORES):
            score_hpatches(run, run.hpatches, TINY_PAIRS if budget == "tiny" else None)
        if not (run.folder / REPORT).is_file():
            report_run(run.experiment, run.folder)


def _adopt(run: Run) -> None:
    """Have a run that is there say where its data lie now, and one that is not finished which settings it goes on with."""
    if not (run.folder / EXPERIMENT).is_file():
        return
    present = read_experiment(run.folder)
    if settings_digest(present) != settings_digest(run.experiment):
        return
    is_finished = (run.folder / SCORES).is_file()
    wanted = present.with_data_of(run.experiment) if is_finished else run.experiment
    if wanted != present:
        write_text(run.folder / EXPERIMENT, to_json(wanted))


def _is_scored_here(run: Run) -> bool:
    """Whether every query has its score, queries and gallery were those that are here now, and lie where the scores say.

    Raises:
        UserError: it was trained on other images than those that are here, or a file is missing or damaged.
    """
    read_metrics(run.folder)
    scores, each = read_scores(run.folder), read_each_score(run.folder)
    if not is_trained_on_data_of(run.folder, run.experiment):
        raise UserError(f"{run.folder} was trained on other images than are here now; remove it, or give another --out")
    if not isinstance(run.experiment, ReidExperiment):
        return bool(each)
    _, test = _digests(run.experiment.data.kind, run.experiment.data.path)
    root = dataset_root(run.experiment.data.kind, run.experiment.data.path)
    shown = all((root / ranked["query"]).is_file() for ranked in scores.get("ranked", ()))
    return bool(each) and shown and scores.get("digest") == test


def is_trained_on_data_of(folder: Path, experiment: Experiment) -> bool:
    """Whether a run was trained on the images that an experiment names: the same files, people and cameras; of Brown, as many.

    Raises:
        UserError: environment.json is missing or damaged, or the data are.
    """
    trained_on = read_environment(folder).get("data", {})
    return trained_on.items() >= call(experiment, "identify_data", experiment).items()


def identify_people(experiment: ReidExperiment) -> dict[str, Any]:
    """The digest of the training images that an experiment names."""
    return {"digest": _digests(experiment.data.kind, experiment.data.path)[0]}


def identify_brown(experiment: BrownExperiment) -> dict[str, Any]:
    """The counts of patches and pairs that an experiment names."""
    return count_brown(experiment.data)


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
        raise UserError(f"{run.folder} has no {EACH_SCORE}; remove the folder and it is trained again")
    dataset = read_dataset(experiment.data.kind, experiment.data.path)
    machine = join_processes(experiment.precision)
    write_scores(run.folder, score_dataset(model.model, dataset, experiment.data, machine))


def _is_scored_on(release: Path, scores: Path) -> bool:
    """Whether HPatches' scores are there, of the task files that the release has now."""
    return scores.is_file() and json.loads(scores.read_text()).get("task_files") == _task_files(release)


def _task_files(release: Path) -> list[str]:
    found = [find_task_file(release, name, "full") for name in (*VERIFICATION_FILES, *RETRIEVAL_FILES)]
    return [path.name for path in found if path]


def score_hpatches(run: Run, release: Path, pairs: int | None) -> None:
    """Write the published figure of each task on the split full, in [0, 1], null where its files are missing."""
    model = load(run.folder)
    assert isinstance(model, PatchEmbedder)
    names = splits()["full"]
    described = describe_release(release, names, model.describe)
    scores = score_split([described[name] for name in names], names, "full", release, pairs or PAIRS)
    means = {task: getattr(scores, f"{task}_mean") for task in ("verification", "matching", "retrieval")}
    write_text(run.folder / HPATCHES_SCORES, json.dumps(means | {"task_files": _task_files(release)}, indent=1))


def leave_torchrun_group() -> bool:
    """Leave torchrun's group, so that each process trains runs of its own on a GPU of its own; whether there was a group.

    Which runs those are is settled by `files.lock_folder`: whoever comes first.
    """
    local = os.environ.get("LOCAL_RANK")
    for name in _TORCHRUN:
        os.environ.pop(name, None)
    if local is not None and torch.cuda.device_count():
        torch.cuda.set_device(int(local) % torch.cuda.device_count())
    return local is not None
