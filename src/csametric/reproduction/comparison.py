"""Ours beside the paper's: a table's figures over seeds, and their differences from its baseline.

Legend: S seeds, Q queries, M labelled pairs, B resamples.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csametric.evaluation.bootstrap import Interval, fpr95_differences, interval, mean_differences
from csametric.reproduction.paper import MEAN, Column, Metric, PaperTable, Row
from csametric.reproduction.places import HPATCHES
from csametric.reproduction.plan import HPATCHES_SCORES, Plan, Run, seconds_trained
from csametric.runs.folder import read_commits, read_each_score, read_scores


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure, in the paper's unit.

    paper: as printed. ours: one for each seed. difference: of their mean from that of the row they are compared with, over the
    seeds that both have, `paired` of them, with the bounds of the paired bootstrap, NaN where the figure is not of queries or
    pairs. difference_spread: its standard deviation over those seeds, where there are several.
    """

    paper: float | None = None
    ours: Sequence[float] = ()
    paired: int = 0
    difference: Interval | None = None
    difference_spread: float | None = None

    @property
    def mean(self) -> float | None:
        """Of ours over the seeds."""
        return float(np.mean(self.ours)) if self.ours else None

    @property
    def spread(self) -> float | None:
        """The standard deviation of ours over the seeds, where there are several."""
        return _spread(self.ours)


@dataclass(frozen=True, kw_only=True)
class FilledTable:
    """A table with our figures, a cell for each label of a row and each column.

    notes: what a reader has to know, a sentence each. commits: of the code that trained the runs. seconds: that they took.
    """

    table: PaperTable
    cells: Mapping[tuple[str, Column], Cell]
    notes: Sequence[str] = ()
    commits: Sequence[str] = ()
    seconds: float = 0.0

    def cell(self, row: Row, column: Column) -> Cell:
        """The figure of a row in a column."""
        return self.cells[row.label, column]


def fill(table: PaperTable, plan: Plan, notes: Sequence[str] = ()) -> FilledTable:
    """A table from the finished runs of a plan."""
    cells = {}
    for row in table.rows:
        compared = {
            column: _compare(row, table.compared_with(row), column, plan) for column in table.columns if column.metric != MEAN
        }
        for column in table.columns:
            comparison = _mean(list(compared.values())) if column.metric == MEAN else compared[column]
            cells[row.label, column] = _cell(table.paper_figure(row, column), comparison)
    runs = {run for row in table.rows for column in table.columns for run in plan.finished(row, column.data).values()}
    return FilledTable(
        table=table,
        cells=cells,
        notes=notes,
        commits=sorted({commit for run in runs for commit in read_commits(run.folder)}),
        seconds=sum(seconds_trained(run.folder) for run in runs),
    )


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """Figures by seed, and the resampled differences over the seeds that both have."""

    ours: Mapping[int, float]
    theirs: Mapping[int, float]
    resampled: NDArray | None

    @property
    def paired(self) -> list[int]:
        return sorted(self.ours.keys() & self.theirs.keys())


def _compare(row: Row, baseline: Row | None, column: Column, plan: Plan) -> _Comparison:
    ours = plan.finished(row, column.data)
    theirs = plan.finished(baseline, column.data) if baseline else {}
    paired = sorted(ours.keys() & theirs.keys())
    resampled = _resampled([ours[seed] for seed in paired], [theirs[seed] for seed in paired], column.metric)
    return _Comparison(
        ours=_figures(ours, column),
        theirs=_figures(theirs, column),
        resampled=None if resampled is None else column.scale * resampled,
    )


def _figures(runs: Mapping[int, Run], column: Column) -> dict[int, float]:
    figures = {seed: figure_of(run, column.metric) for seed, run in runs.items()}
    return {seed: column.scale * figure for seed, figure in figures.items() if figure is not None}


def figure_of(run: Run, metric: Metric) -> float | None:
    """A figure of a finished run as its files have it; None for a task that could not be scored."""
    values: Any = read_scores(run.folder)
    if metric[0] == HPATCHES:
        path = run.folder / HPATCHES_SCORES
        values = {HPATCHES: json.loads(path.read_text()) if path.is_file() else {}}
    for name in metric:
        values = values.get(name)
        if values is None:
            return None
    return float(values)


def _resampled(ours: Sequence[Run], theirs: Sequence[Run], metric: Metric) -> NDArray | None:
    """Runs of the same seeds in the same order; None where there are none."""
    if not ours or metric[0] == HPATCHES:
        return None
    ours_S, theirs_S = ([read_each_score(run.folder) for run in runs] for runs in (ours, theirs))
    if metric[0] == "fpr95":
        distances, is_match = f"distances_{metric[1]}", f"is_match_{metric[1]}"
        return fpr95_differences(
            [each[distances] for each in ours_S], [each[distances] for each in theirs_S], ours_S[0][is_match]
        )
    return mean_differences(
        [_of_queries(each, metric[0]) for each in ours_S], [_of_queries(each, metric[0]) for each in theirs_S]
    )


def _of_queries(scores: Mapping[str, NDArray], metric: str) -> NDArray:
    """What the metric is the mean of, (Q,)."""
    if metric.startswith("rank"):
        return scores["first_match"] <= int(metric.removeprefix("rank"))
    return scores[metric.replace("map", "ap")]


def _mean(comparisons: Sequence[_Comparison]) -> _Comparison:
    """Of columns, over the seeds that all have; resampled only where all columns pair the same seeds."""
    resampled = [each.resampled for each in comparisons if each.resampled is not None]
    same_seeds = len({tuple(each.paired) for each in comparisons}) == 1
    return _Comparison(
        ours=_mean_of_columns([each.ours for each in comparisons]),
        theirs=_mean_of_columns([each.theirs for each in comparisons]),
        resampled=np.mean(resampled, axis=0) if same_seeds and len(resampled) == len(comparisons) else None,
    )


def _mean_of_columns(columns: Sequence[Mapping[int, float]]) -> dict[int, float]:
    seeds = set.intersection(*(set(column) for column in columns))
    return {seed: float(np.mean([column[seed] for column in columns])) for seed in sorted(seeds)}


def _cell(paper: float | None, compared: _Comparison) -> Cell:
    ours = list(compared.ours.values())
    differences = [compared.ours[seed] - compared.theirs[seed] for seed in compared.paired]
    if not differences:
        return Cell(paper=paper, ours=ours)
    difference = float(np.mean(differences))
    return Cell(
        paper=paper,
        ours=ours,
        paired=len(differences),
        difference=Interval(difference, np.nan, np.nan)
        if compared.resampled is None
        else interval(difference, compared.resampled),
        difference_spread=_spread(differences),
    )


def _spread(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
