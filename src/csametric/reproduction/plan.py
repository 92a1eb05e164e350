"""The runs that tables need: their settings, their folders, and how far they are."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from csametric.reproduction.budgets import Budget, experiment_for
from csametric.reproduction.paper import LIBERTY, MEAN, PaperTable, Row
from csametric.reproduction.places import HPATCHES, MissingDataError, find_place
from csametric.runs.experiment import Experiment
from csametric.runs.folder import METRICS, SCORES, SCORES_BY_QUERY, read_environment, read_experiment, read_metrics

HPATCHES_SCORES = "hpatches.json"
NOT_OF_THE_RESULT = ("recipe", "checkpoint_every", "evaluate_every", "attention_every")  # settings without influence on it
PLACES = ("path", "root")  # settings that say where data lie
ADDED_LATER = {
    "camera_pattern": "",
    "new_heads": False,
    "calibration": 0.0,
}  # settings that older runs lack, with the value that changes nothing


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run from which scores of tables are taken."""

    experiment: Experiment
    folder: Path
    hpatches: Path | None = None  # the HPatches release, for a run that is scored on it too

    @property
    def is_finished(self) -> bool:
        """Whether all its scores are written."""
        files = [SCORES, SCORES_BY_QUERY]
        if self.hpatches:
            files.append(HPATCHES_SCORES)
        return all((self.folder / name).is_file() for name in files)

    @property
    def steps_done(self) -> int:
        """The last training step in its log; 0 if it has not begun."""
        if not (self.folder / METRICS).is_file():
            return 0
        rows = read_metrics(self.folder)
        return int(rows[-1]["step"]) if rows else 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The runs that some tables need."""

    budget: Budget
    seeds: int  # seeds 0, 1, ... per row
    runs: Mapping[tuple[str, str, int], Run]  # by recipe, dataset and seed
    missing: Mapping[str, str]  # for each missing dataset, by its key: what is missing and what to get

    def for_table(self, table: PaperTable) -> list[Run]:
        """The runs of a table, row by row."""
        needed = set(trainings(table))
        return [run for (recipe, data, _), run in self.runs.items() if (recipe, data) in needed]

    def without_runs(self, runs: Collection[Run]) -> "Plan":
        """The plan without some runs, whose scores cannot be trusted."""
        return replace(self, runs={key: run for key, run in self.runs.items() if run not in runs})

    def finished(self, row: Row, data: str) -> dict[int, Run]:
        """The finished runs of a row on a dataset, by seed."""
        runs = {seed: self.runs.get((row.recipe or "", data, seed)) for seed in range(self.seeds)}
        return {seed: run for seed, run in runs.items() if run and run.is_finished}


def make_plan(
    tables: Sequence[PaperTable], root: Path, out: Path, budget: Budget, seeds: int, weights: Path | None = None
) -> Plan:
    """Plan the runs of tables, each run once, in the order of the tables.

    A table that is scored on HPatches gets no runs if HPatches is missing.

    Args:
        tables: the tables to fill.
        root: the folder that holds the datasets.
        out: the folder of the reproduction; runs go to its subfolder `runs`.
        budget: how large the runs are.
        seeds: the number of seeds per row, at least 1.
        weights: as in `budgets.experiment_for`.
    """
    # find the datasets
    places: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for data in dict.fromkeys(key for table in tables for key in data_of(table)):
        try:
            places[data] = find_place(root, data)
        except MissingDataError as error:
            missing[data] = str(error)

    # leave out tables that cannot be scored
    tables = [table for table in tables if not (HPATCHES in missing and HPATCHES in data_of(table))]
    with_hpatches = {row.recipe for table in tables if HPATCHES in data_of(table) for row in table.rows}

    # one run per recipe, dataset and seed
    runs: dict[tuple[str, str, int], Run] = {}
    for recipe, data in dict.fromkeys(pair for table in tables for pair in trainings(table)):
        scored_on = places.get(HPATCHES) if recipe in with_hpatches and data == LIBERTY else None
        for seed in range(seeds if data in places else 0):
            experiment = experiment_for(recipe, data, places[data], seed, budget, weights)
            folder = out / "runs" / f"{recipe}-{data}-seed{seed}-{settings_digest(experiment)}"
            runs[recipe, data, seed] = Run(experiment=experiment, folder=folder, hpatches=scored_on)
    return Plan(budget=budget, seeds=seeds, runs=runs, missing=missing)


def trainings(table: PaperTable) -> list[tuple[str, str]]:
    """The pairs of (recipe, dataset) that a table needs, row by row.

    Examples:
        >>> from csametric.reproduction.paper import TABLES
        >>> trainings(TABLES["table8"])[:2]
        [('brown_hardnet', 'brown-liberty'), ('brown_hardnet_sa', 'brown-liberty')]
    """
    datasets = [data for data in data_of(table) if data != HPATCHES]
    return [(row.recipe, data) for row in table.rows if row.recipe is not None for data in datasets]


def data_of(table: PaperTable) -> list[str]:
    """The keys of the datasets that a table needs: those that its runs train on, then HPatches if they are scored on it.

    Examples:
        >>> from csametric.reproduction.paper import TABLES
        >>> data_of(TABLES["table8"])
        ['brown-liberty', 'hpatches']
    """
    datasets = list(dict.fromkeys(column.data for column in table.columns if column.metric != MEAN and column.data))
    if any(column.metric[0] == HPATCHES for column in table.columns):
        datasets.append(HPATCHES)
    return datasets


def settings_digest(experiment: Experiment) -> str:
    """Twelve hexadecimal digits of all settings that influence the result.

    The name of the recipe and the paths of data and weights do not count; weights from a file count as ImageNet weights.
    """
    values = {name: value for name, value in asdict(experiment).items() if name not in NOT_OF_THE_RESULT}
    for group in ("data", "model"):
        values[group] = {
            name: value
            for name, value in values[group].items()
            if name not in PLACES and not (name in ADDED_LATER and value == ADDED_LATER[name])
        }
    if values["model"].get("pretrained", "none") not in ("none", "wheel"):
        values["model"] = {**values["model"], "pretrained": "imagenet"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def seconds_trained(folder: Path) -> float:
    """The seconds that the training steps of a run took, from their logged rates."""
    experiment, processes = read_experiment(folder), read_environment(folder).get("processes", 1)
    rates = [next(value for name, value in row.items() if name.endswith("_per_second")) for row in read_metrics(folder)]
    return float(np.sum(experiment.batch_size * processes / np.array(rates)))
