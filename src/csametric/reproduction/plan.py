"""The runs that tables need: which, under what name, and how far they are."""

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
from csametric.runs.folder import EACH_SCORE, METRICS, SCORES, read_environment, read_experiment, read_metrics

HPATCHES_SCORES = "hpatches.json"
NOT_OF_THE_RESULT = ("recipe", "checkpoint_every", "evaluate_every", "attention_every")
PLACES = ("path", "root")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training that figures of tables come from, and its folder. hpatches: the release, where it is scored on it too."""

    experiment: Experiment
    folder: Path
    hpatches: Path | None = None

    @property
    def is_finished(self) -> bool:
        """Whether all its scores are there."""
        wanted = [SCORES, EACH_SCORE, *([HPATCHES_SCORES] if self.hpatches else [])]
        return all((self.folder / name).is_file() for name in wanted)

    @property
    def steps_done(self) -> int:
        """As its log has them."""
        rows = read_metrics(self.folder) if (self.folder / METRICS).is_file() else []
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

    def finished(self, row: Row, data: str) -> dict[int, Run]:
        """The finished runs of a row on a dataset by their seeds."""
        runs = {seed: self.runs.get((row.recipe or "", data, seed)) for seed in range(self.seeds)}
        return {seed: run for seed, run in runs.items() if run and run.is_finished}


def make_plan(
    tables: Sequence[PaperTable], root: Path, out: Path, budget: Budget, seeds: int, weights: Path | None = None
) -> Plan:
    """The runs of tables, in their order, each once; none of a table that is scored on HPatches where that is missing.

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
    tables = [table for table in tables if not (HPATCHES in missing and HPATCHES in data_of(table))]
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


def seconds_trained(folder: Path) -> float:
    """What its steps took, by their logged rates."""
    experiment, processes = read_experiment(folder), read_environment(folder).get("processes", 1)
    rates = [next(value for name, value in row.items() if name.endswith("_per_second")) for row in read_metrics(folder)]
    return float(np.sum(experiment.batch_size * processes / np.array(rates)))
