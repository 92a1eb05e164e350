"""Our scores beside the paper's: their means over seeds, and their differences from a table's baseline.

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
from csametric.runs.folder import read_commits, read_scores, read_scores_by_query


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table, in the paper's unit.

    Our score is compared with that of a baseline row over the seeds that both rows have. The bounds of the difference come
    from a paired bootstrap over queries or labelled pairs; they are NaN for a score that is not a mean over those.
    """

    paper: float | None = None  # as printed
    ours: Sequence[float] = ()  # one score per seed
    paired: int = 0  # number of seeds that both rows have
    difference: Interval | None = None  # from the baseline, with 95 % bounds; None for the baseline itself
    difference_spread: float | None = None  # its standard deviation over seeds; None below two seeds

    @property
    def mean(self) -> float | None:
        """The mean of our scores over seeds; None without scores."""
        return float(np.mean(self.ours)) if self.ours else None

    @property
    def spread(self) -> float | None:
        """The standard deviation of our scores over seeds; None below two seeds."""
        return _spread(self.ours)


@dataclass(frozen=True, kw_only=True)
class FilledTable:
    """A table of the paper with our scores."""

    table: PaperTable
    cells: Mapping[tuple[str, Column], Cell]  # by the label of a row, and column
    notes: Sequence[str] = ()  # sentences that a reader of the table must know
    commits: Sequence[str] = ()  # of the code that trained the runs
    seconds: float = 0.0  # time spent on training the runs

    def cell(self, row: Row, column: Column) -> Cell:
        """The cell of a row and a column."""
        return self.cells[row.label, column]


def fill(table: PaperTable, plan: Plan, notes: Sequence[str] = ()) -> FilledTable:
    """Fill a table with the scores of the finished runs of a plan.

    Args:
        table: the table to fill.
        plan: its runs.
        notes: sentences to write below the table.
    """
    cells = {}
    for row in table.rows:
        compared = {
            column: _compare(row, table.compared_with(row), column, plan) for column in table.columns if column.metric != MEAN
        }
        for column in table.columns:
            comparison = _mean_comparison(list(compared.values())) if column.metric == MEAN else compared[column]
            cells[row.label, column] = _cell(table.paper_score(row, column), comparison)
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
    """The scores of a row and of its baseline in one column."""

    ours: Mapping[int, float]  # by seed
    theirs: Mapping[int, float]  # of the baseline, by seed
    resampled: NDArray | None  # (B,), differences over the paired seeds; None if the score cannot be resampled

    @property
    def paired(self) -> list[int]:
        """The seeds that both rows have."""
        return sorted(self.ours.keys() & self.theirs.keys())


def _compare(row: Row, baseline: Row | None, column: Column, plan: Plan) -> _Comparison:
    ours = plan.finished(row, column.data)
    theirs = plan.finished(baseline, column.data) if baseline else {}
    paired = sorted(ours.keys() & theirs.keys())
    resampled = _resample([ours[seed] for seed in paired], [theirs[seed] for seed in paired], column.metric)
    return _Comparison(
        ours=_scores(ours, column),
        theirs=_scores(theirs, column),
        resampled=None if resampled is None else column.scale * resampled,
    )


def _scores(runs: Mapping[int, Run], column: Column) -> dict[int, float]:
    scores = {seed: score_of(run, column.metric) for seed, run in runs.items()}
    return {seed: column.scale * score for seed, score in scores.items() if score is not None}


def score_of(run: Run, metric: Metric) -> float | None:
    """A score of a finished run, in the unit of its files; None for a task that could not be scored.

    Args:
        run: a finished run.
        metric: the keys that lead to the score, as in `Column.metric`.
    """
    values: Any = read_scores(run.folder)
    if metric[0] == HPATCHES:
        path = run.folder / HPATCHES_SCORES
        values = {HPATCHES: json.loads(path.read_text()) if path.is_file() else {}}
    for name in metric:
        values = values.get(name)
        if values is None:
            return None
    return float(values)


def _resample(ours: Sequence[Run], theirs: Sequence[Run], metric: Metric) -> NDArray | None:
    """Resampled differences, (B,), between runs of the same seeds in the same order; None if they cannot be resampled."""
    if not ours or metric[0] == HPATCHES:
        return None
    ours_S = [read_scores_by_query(run.folder) for run in ours]
    theirs_S = [read_scores_by_query(run.folder) for run in theirs]
    if metric[0] == "fpr95":
        distances, is_match = f"distances_{metric[1]}", f"is_match_{metric[1]}"
        return fpr95_differences(
            [scores[distances] for scores in ours_S], [scores[distances] for scores in theirs_S], ours_S[0][is_match]
        )
    return mean_differences(
        [_scores_by_query(scores, metric[0]) for scores in ours_S],
        [_scores_by_query(scores, metric[0]) for scores in theirs_S],
    )


def _scores_by_query(scores: Mapping[str, NDArray], metric: str) -> NDArray:
    """The values, (Q,), of which a metric is the mean."""
    if metric.startswith("rank"):
        return scores["first_match"] <= int(metric.removeprefix("rank"))
    return scores[metric.replace("map", "ap")]


def _mean_comparison(comparisons: Sequence[_Comparison]) -> _Comparison:
    """The mean over columns, for the seeds that all columns have; resampled only if all columns pair the same seeds."""
    resampled = [column.resampled for column in comparisons if column.resampled is not None]
    same_seeds = len({tuple(column.paired) for column in comparisons}) == 1
    return _Comparison(
        ours=_mean_of_columns([column.ours for column in comparisons]),
        theirs=_mean_of_columns([column.theirs for column in comparisons]),
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
    mean = float(np.mean(differences))
    return Cell(
        paper=paper,
        ours=ours,
        paired=len(differences),
        difference=Interval(mean, np.nan, np.nan) if compared.resampled is None else interval(mean, compared.resampled),
        difference_spread=_spread(differences),
    )


def _spread(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
