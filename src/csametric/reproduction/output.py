"""What a reproduction writes: each table as text, CSV and LaTeX, and one HTML report over tables."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from csametric.files import write_text
from csametric.reproduction.budgets import MEANINGS
from csametric.reproduction.comparison import FilledTable, fill, score_of
from csametric.reproduction.paper import Column, PaperTable
from csametric.reproduction.places import HPATCHES
from csametric.reproduction.plan import Plan, Run, data_of, seconds_trained
from csametric.reproduction.rendering import as_csv, as_latex, as_sections, as_text, title_of
from csametric.reproduction.speed import fill_speed
from csametric.runs.folder import read_commits, read_environment
from csametric.visualization import figures
from csametric.visualization.page import Section, Table, render

SPEED = "speed"  # subfolder of the results that Table 6 is filled from
EXPLANATION = (
    "Each cell shows our score, its standard deviation over seeds, and the paper's score in brackets. Rows marked cited are "
    "results of others that the paper cites; rows marked ours are not in the paper. mAP is the trapezoid form, as in papers of "
    "PCB's time; mAP (step) is the form of torchreid and fast-reid."
)


def filled_table(table: PaperTable, plan: Plan, out: Path, failed: Mapping[Run, str]) -> FilledTable:
    """Fill a table with the scores of finished runs, and note what is missing.

    Args:
        table: the table to fill.
        plan: its runs.
        out: the folder of the reproduction.
        failed: why runs failed; their scores are left out.
    """
    if table.name == "table6":
        filled = fill_speed(out / SPEED)
        return replace(filled, notes=[*_budget_note(plan), *filled.notes])
    return fill(table, plan.without_runs(failed), _notes(table, plan, failed))


def write_table(filled: FilledTable, out: Path) -> None:
    """Write a table to `out` as tableN.txt, .csv and .tex."""
    name = filled.table.name
    for ending, text in (("txt", as_text(filled)), ("csv", as_csv(filled)), ("tex", as_latex(filled))):
        write_text(out / f"{name}.{ending}", text)


def write_report(
    title: str,
    filled: Sequence[FilledTable],
    runs: Sequence[Run],
    pictures: Sequence[tuple[str, str]],
    machine: Mapping[str, object],
    path: Path,
) -> None:
    """Write one self-contained HTML report over tables.

    Args:
        title: of the page.
        filled: the tables.
        runs: the runs of the tables, finished or not.
        pictures: data URIs with captions, for example Figure 5.
        machine: what to say about the machine, names and values.
        path: of the page.
    """
    sections = []
    for table in filled:
        sections += [*as_sections(table), *_differences_section(table)]
    if pictures:
        sections.append(Section(title="Figures", pictures=pictures))
    sections.append(_runs_section(runs))
    rows = [[name, str(value)] for name, value in machine.items()]
    sections.append(Section(title="Machine", table=Table(header=["what", "value"], rows=rows)))
    write_text(path, render(title, EXPLANATION, sections))


def _runs_section(runs: Sequence[Run]) -> Section:
    """The runs that the scores come from, how long they took, and the commit that trained them."""
    rows = []
    for run in runs:
        if run.is_finished:
            commits = ", ".join(read_commits(run.folder))
            rows.append([run.folder.name, "finished", f"{seconds_trained(run.folder) / 60:.1f}", commits])
        elif run.steps_done:
            rows.append([run.folder.name, f"step {run.steps_done:,}", "", ""])
        else:
            rows.append([run.folder.name, "to do", "", ""])
    text = "Each folder runs/NAME holds settings, metrics, weights, scores per query and report.html."
    return Section(title="Runs", text=text, table=Table(header=["run", "state", "minutes of training", "commit"], rows=rows))


def _differences_section(filled: FilledTable) -> list[Section]:
    pictures = []
    for group in filled.table.groups:
        main = filled.table.main_column(group)
        labels, intervals = [], []
        for row in filled.table.rows:
            difference = filled.cell(row, main).difference
            if difference is not None:
                labels.append(f"{row.label}, from {row.against}" if row.against else row.label)
                intervals.append(difference)
        if labels:
            title = f"{group}: {main.label} minus that of {filled.table.baseline}"
            pictures.append((figures.data_uri(figures.differences(labels, intervals, title, "points")), title))
    if not pictures:
        return []
    return [Section(title=f"{title_of(filled.table)}: differences", pictures=pictures)]


def _budget_note(plan: Plan) -> list[str]:
    return [] if plan.budget == "full" else [f"Budget {plan.budget}: {MEANINGS[plan.budget]}."]


def _notes(table: PaperTable, plan: Plan, failed: Mapping[Run, str]) -> list[str]:
    """Notes on the budget, on missing datasets, and on runs that failed, are not finished or differ in precision."""
    runs = plan.for_table(table)
    missing = [f"Left out: {plan.missing[data]}." for data in data_of(table) if data in plan.missing]
    errors = [f"Failed: {failed[run]}." for run in runs if run in failed]
    notes = [*_budget_note(plan), *dict.fromkeys(missing), *dict.fromkeys(errors)]
    unfinished = sum(not run.is_finished and run not in failed for run in runs)
    if unfinished:
        notes.append(f"Runs that are not finished: {unfinished}.")
    return [*notes, *_precision_note(runs, failed), *_missing_task_notes(table, runs)]


def _precision_note(runs: Sequence[Run], failed: Mapping[Run, str]) -> list[str]:
    finished = [run for run in runs if run.is_finished and run not in failed]
    precisions = sorted({read_environment(run.folder).get("precision", "unknown") for run in finished})
    return [f"The runs were trained in different precisions: {', '.join(precisions)}."] if len(precisions) > 1 else []


def _missing_task_notes(table: PaperTable, runs: Sequence[Run]) -> list[str]:
    scored = next((run for run in runs if run.is_finished and run.hpatches), None)
    if scored is None:
        return []
    columns: list[Column] = [column for column in table.columns if column.metric[0] == HPATCHES]
    missing = [column.metric[1] for column in columns if score_of(scored, column.metric) is None]
    return [
        f"The HPatches task files of {task} are missing: put the benchmark's folder tasks into the release." for task in missing
    ]
