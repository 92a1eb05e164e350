"""Collecting finished runs from other folders or machines, found by their settings and data."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from csametric.errors import BusyError, UserError
from csametric.files import lock_folder, replace_folder
from csametric.reproduction.execution import is_trained_on_data_of
from csametric.reproduction.plan import Run, settings_digest
from csametric.runs.folder import EXPERIMENT, SCORES, WEIGHTS, read_environment, read_experiment


class Collected(NamedTuple):
    """The outcome of `collect`."""

    runs: list[Run]  # planned runs of which a finished copy was found
    skipped: list[str]  # why runs of the right settings were not used, one sentence per run


def collect(folders: Sequence[Path], runs: Sequence[Run], copy: bool = True) -> Collected:
    """Find finished runs with the settings of planned ones, and copy them into the folders of the planned ones.

    Args:
        folders: searched for runs, with their subfolders.
        runs: the planned runs; those with scores are not looked for.
        copy: whether to copy; otherwise the runs are only found.

    Raises:
        UserError: one of the folders does not exist.
    """
    planned = {settings_digest(run.experiment): run for run in runs if not (run.folder / SCORES).is_file()}
    collected, skipped = [], []
    for folder in _finished_runs(folders):
        try:
            digest = settings_digest(read_experiment(folder))
            if digest in planned:
                _check(folder, planned[digest])
                if copy:
                    _copy(folder, planned[digest].folder)
                collected.append(planned.pop(digest))
        except BusyError:
            planned.pop(digest)  # another process is working on it
        except UserError as error:
            skipped.append(f"{folder}: {error}")
    return Collected(collected, skipped)


def _finished_runs(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"folder {folder}, from which to collect runs, does not exist; correct the path")
        for path in sorted(folder.rglob(EXPERIMENT)):
            is_finished = (path.parent / SCORES).is_file() and (path.parent / WEIGHTS).is_file()
            if is_finished and not path.parent.name.startswith("."):
                yield path.parent


def _check(folder: Path, run: Run) -> None:
    """Raise `UserError` if a run of the same settings was not trained as the planned one would be."""
    processes = read_environment(folder).get("processes", 1)
    if processes != 1:
        raise UserError(f"it was trained by {processes} processes together, with batches {processes} times as large")
    if not is_trained_on_data_of(folder, run.experiment):
        raise UserError("it was trained on images that differ from those in the data folder")


def _copy(source: Path, target: Path) -> None:
    """Copy a run without its training state, in place of the target; `BusyError` if another process is using the target."""
    with lock_folder(target), replace_folder(target) as new:
        shutil.copytree(source, new, ignore=shutil.ignore_patterns("state"), dirs_exist_ok=True)
