"""Finished runs that were made elsewhere, found by their settings and their data."""

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
    """found: runs that were wanted. passed_over: why runs of wanted settings were not taken, a sentence each."""

    found: list[Run]
    passed_over: list[str]


def collect(folders: Sequence[Path], runs: Sequence[Run], copy: bool = True) -> Collected:
    """Copy finished runs that were made elsewhere, found by their settings, to where they are wanted.

    Args:
        copy: whether to; otherwise they are only found.

    Raises:
        UserError: one of the folders is not there.
    """
    wanted = {settings_digest(run.experiment): run for run in runs if not (run.folder / SCORES).is_file()}
    found, passed_over = [], []
    for folder in _finished_runs(folders):
        try:
            digest = settings_digest(read_experiment(folder))
            if digest in wanted:
                _check(folder, wanted[digest])
                if copy:
                    _copy(folder, wanted[digest].folder)
                found.append(wanted.pop(digest))
        except BusyError:
            wanted.pop(digest)
        except UserError as error:
            passed_over.append(f"{folder}: {error}")
    return Collected(found, passed_over)


def _finished_runs(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder} to collect runs from; correct the path")
        for path in sorted(folder.rglob(EXPERIMENT)):
            is_whole = (path.parent / SCORES).is_file() and (path.parent / WEIGHTS).is_file()
            if is_whole and not path.parent.name.startswith("."):
                yield path.parent


def _check(folder: Path, run: Run) -> None:
    """See that a run of the same settings was trained as this one would be."""
    processes = read_environment(folder).get("processes", 1)
    if processes != 1:
        raise UserError(f"it was trained by {processes} processes together, with batches {processes} times as large")
    if not is_trained_on_data_of(folder, run.experiment):
        raise UserError("it was trained on other images than are here")


def _copy(source: Path, target: Path) -> None:
    """Aside, then in the place of what is there, unless another process is at work on that."""
    with lock_folder(target), replace_folder(target) as new:
        shutil.copytree(source, new, ignore=shutil.ignore_patterns("state"), dirs_exist_ok=True)
