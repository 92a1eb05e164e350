"""Executing runs: train, score and report them, shared among processes."""

import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from csametric.data.brown import count_brown
from csametric.data.datasets import dataset_root, read_dataset
from csametric.data.hpatches import PAIRS, RETRIEVAL_FILES, VERIFICATION_FILES, find_task_file, read_splits
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
    EXPERIMENT,
    SCORES,
    SCORES_BY_QUERY,
    read_environment,
    read_experiment,
    read_metrics,
    read_scores,
    read_scores_by_query,
    write_scores,
)
from csametric.runs.kinds import call
from csametric.runs.overrides import to_json
from csametric.training import loop
from csametric.training.machine import join_processes
from csametric.training.reid_scoring import score_dataset

REPORT = "report.html"
TINY_PAIRS = 1000  # drawn for the verification task of HPatches under the tiny budget
_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


def execute_runs(runs: Sequence[Run], budget: Budget) -> dict[Run, str]:
    """Train, score and report the runs that are not finished; skip a run that another process is using.

    Returns:
        Why runs failed: training diverged, the GPU's memory is too small, a file is damaged, or the data have changed.

    Raises:
        FullDiskError: the disk is full, so no other run can succeed either.
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
            failed[run] = f"{run.folder.name} does not fit into the GPU's memory; run it on a larger GPU and use --collect"
    return failed


def _execute(run: Run, budget: Budget) -> None:
    with lock_folder(run.folder):
        _update_experiment(run)
    if not (run.folder / SCORES).is_file():
        loop.train(run.experiment, run.folder)
    with lock_folder(run.folder):
        if not _is_scored_here(run):
            score_again(run)
        if run.hpatches and not _is_scored_on(run.hpatches, run.folder / HPATCHES_SCORES):
            score_hpatches(run, run.hpatches, TINY_PAIRS if budget == "tiny" else None)
        if not (run.folder / REPORT).is_file():
            report_run(run.experiment, run.folder)


def _update_experiment(run: Run) -> None:
    """Update an existing run's experiment.json: the current data paths, and if it is not finished all current settings."""
    if not (run.folder / EXPERIMENT).is_file():
        return
    present = read_experiment(run.folder)
    if settings_digest(present) != settings_digest(run.experiment):
        return
    is_finished = (run.folder / SCORES).is_file()
    updated = present.with_data_of(run.experiment) if is_finished else run.experiment
    if updated != present:
        write_text(run.folder / EXPERIMENT, to_json(updated))


def _is_scored_here(run: Run) -> bool:
    """Whether a run has scores per query, of the queries and gallery that are in the data folder now.

    Raises:
        UserError: the run was trained on other images than those in the data folder, or a file is missing or damaged.
    """
    read_metrics(run.folder)  # raises if the log is damaged
    scores, scores_by_query = read_scores(run.folder), read_scores_by_query(run.folder)
    if not is_trained_on_data_of(run.folder, run.experiment):
        raise UserError(
            f"{run.folder} was trained on images that differ from those in the data folder; remove it or use another --out"
        )
    if not isinstance(run.experiment, ReidExperiment):
        return bool(scores_by_query)
    _, test_digest = _digests(run.experiment.data.kind, run.experiment.data.path)
    root = dataset_root(run.experiment.data.kind, run.experiment.data.path)
    are_ranked_files_present = all((root / ranked["query"]).is_file() for ranked in scores.get("ranked", ()))
    return bool(scores_by_query) and are_ranked_files_present and scores.get("digest") == test_digest


def is_trained_on_data_of(folder: Path, experiment: Experiment) -> bool:
    """Whether a run was trained on the data that an experiment names.

    People are compared by files, identities and cameras, Brown by the numbers of patches and pairs.

    Raises:
        UserError: environment.json or the data are missing or damaged.
    """
    trained_on = read_environment(folder).get("data", {})
    return trained_on.items() >= call(experiment, "identify_data", experiment).items()


def people_fingerprint(experiment: ReidExperiment) -> dict[str, Any]:
    """The digest of an experiment's training images."""
    return {"digest": _digests(experiment.data.kind, experiment.data.path)[0]}


def brown_fingerprint(experiment: BrownExperiment) -> dict[str, Any]:
    """The numbers of patches and pairs of an experiment's subsets of Brown."""
    return count_brown(experiment.data)


@cache
def _digests(kind: str, path: str) -> tuple[str, str]:
    """The digests of the training images, and of queries and gallery."""
    dataset = read_dataset(kind, path)
    return data_digest(dataset.train), data_digest([*dataset.query, *dataset.gallery])


def score_again(run: Run) -> None:
    """Score a trained run on the queries and gallery that are in the data folder now.

    Raises:
        UserError: the run is a descriptor, which is only scored at the end of training.
    """
    model, experiment = load(run.folder), run.experiment
    if not isinstance(model, ImageEmbedder) or not isinstance(experiment, ReidExperiment):
        raise UserError(f"{run.folder / SCORES_BY_QUERY} is missing; remove the folder to train the run again")
    dataset = read_dataset(experiment.data.kind, experiment.data.path, experiment.data.camera_pattern)
    machine = join_processes(experiment.precision)
    write_scores(run.folder, score_dataset(model.scoring_engine, dataset, experiment.data, machine))


def _is_scored_on(release: Path, scores: Path) -> bool:
    """Whether the HPatches scores are written and cover the task files that the release has now."""
    return scores.is_file() and json.loads(scores.read_text()).get("task_files") == _task_files(release)


def _task_files(release: Path) -> list[str]:
    paths = [find_task_file(release, name, "full") for name in (*VERIFICATION_FILES, *RETRIEVAL_FILES)]
    return [path.name for path in paths if path]


def score_hpatches(run: Run, release: Path, pairs: int | None) -> None:
    """Score a run on the split "full" of HPatches and write the mean of each task, in [0, 1], or null without its task file.

    Args:
        run: a finished descriptor.
        release: the folder of the HPatches release.
        pairs: how many pairs to draw for verification if its task files are missing; None for the benchmark's number.
    """
    model = load(run.folder)
    assert isinstance(model, PatchEmbedder)
    names = read_splits()["full"]
    described = describe_release(release, names, model.describe)
    scores = score_split([described[name] for name in names], names, "full", release, pairs or PAIRS)
    means = {task: getattr(scores, f"{task}_mean") for task in ("verification", "matching", "retrieval")}
    write_text(run.folder / HPATCHES_SCORES, json.dumps(means | {"task_files": _task_files(release)}, indent=1))


def leave_torchrun_group() -> bool:
    """Leave torchrun's group, so that each process trains its own runs on its own GPU.

    Each process takes the next run whose folder it can lock (`files.lock_folder`).

    Returns:
        Whether this process was in a group.
    """
    local = os.environ.get("LOCAL_RANK")
    for name in _TORCHRUN:
        os.environ.pop(name, None)
    if local is not None and torch.cuda.device_count():
        torch.cuda.set_device(int(local) % torch.cuda.device_count())
    return local is not None
