"""What a reproduction leaves: a table as text, CSV and LaTeX, and one report over all."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from csametric.files import write_text
from csametric.reproduction.budgets import MEANINGS
from csametric.reproduction.comparison import FilledTable, figure_of, fill
from csametric.reproduction.paper import Column, PaperTable
from csametric.reproduction.places import HPATCHES
from csametric.reproduction.plan import Plan, Run, data_of, seconds_trained
from csametric.reproduction.rendering import as_csv, as_latex, as_sections, as_text, title_of
from csametric.reproduction.speed import fill_speed
from csametric.runs.folder import read_commits, read_environment
from csametric.visualization import figures
from csametric.visualization.page import Section, Table, render

SPEED = "speed"
EXPLANATION = (
    "Each figure is ours, with its standard deviation over seeds, and the paper's in brackets. Rows marked cited are the "
    "paper's citations of others, rows marked ours are not in the paper. mAP is the trapezoid form that "
    "the tables of PCB's time have; the step form of torchreid and fast-reid stands beside it."
)


def filled_table(table: PaperTable, plan: Plan, out: Path, failed: Mapping[Run, str]) -> FilledTable:
    """A table with what has been run, and notes on what has not.

    Args:
        out: the folder of the reproduction. failed: why runs have failed; their figures are left out.
    """
    if table.name == "table6":
        filled = fill_speed(out / SPEED)
        return replace(filled, notes=[*_setting(plan), *filled.notes])
    return fill(table, plan.without(failed), _notes(table, plan, failed))


def write_table(filled: FilledTable, out: Path) -> None:
    """OUT/tableN.txt, .csv and .tex."""
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
    """A report over tables.

    Args:
        runs: the tables', finished or not. pictures: data URIs with captions, such as Figure 5. machine: names and values.
    """
    sections = [section for each in filled for section in (*as_sections(each), *_differences_section(each))]
    if pictures:
        sections.append(Section(title="Figures", pictures=pictures))
    sections.append(_runs_section(runs))
    rows = [[name, str(value)] for name, value in machine.items()]
    sections.append(Section(title="Machine", table=Table(header=["what", "value"], rows=rows)))
    write_text(path, render(title, EXPLANATION, sections))


def _runs_section(runs: Sequence[Run]) -> Section:
    """Which runs the figures are of, how long they took, and the code that trained them; each has a report of its own."""
    rows = []
    for run in runs:
        if run.is_finished:
            commits = ", ".join(read_commits(run.folder))
            rows.append([run.folder.name, "finished", f"{seconds_trained(run.folder) / 60:.1f}", commits])
        else:
            rows.append([run.folder.name, f"step {run.steps_done:,}" if run.steps_done else "to do", "", ""])
    text = "In runs/NAME: settings, metrics, weights, scores of each query, report.html."
    return Section(title="Runs", text=text, table=Table(header=["run", "state", "minutes of training", "commit"], rows=rows))


def _differences_section(filled: FilledTable) -> list[Section]:
    pictures = []
    for group in filled.table.groups:
        main = filled.table.main_column(group)
        shown = [
            (row.label + (f", from {row.against}" if row.against else ""), cell.difference)
            for row in filled.table.rows
            if (cell := filled.cell(row, main)).difference is not None
        ]
        if shown:
            labels, intervals = zip(*shown, strict=True)
            title = f"{group}: {main.label} less that of {filled.table.baseline}"
            pictures.append((figures.data_uri(figures.differences(labels, intervals, title, "points")), title))
    return [Section(title=f"{title_of(filled.table)}: differences", pictures=pictures)] if pictures else []


def _setting(plan: Plan) -> list[str]:
    return [] if plan.budget == "full" else [f"Budget {plan.budget}: {MEANINGS[plan.budget]}."]


def _notes(table: PaperTable, plan: Plan, failed: Mapping[Run, str]) -> list[str]:
    absent = [f"Left out: {plan.missing[data]}." for data in data_of(table) if data in plan.missing]
    runs = plan.for_table(table)
    stopped = [f"Failed: {failed[run]}." for run in runs if run in failed]
    others = sum(not run.is_finished and run not in failed for run in runs)
    left = [f"{others} runs are not finished."] if others else []
    absent, stopped = list(dict.fromkeys(absent)), list(dict.fromkeys(stopped))
    return [*_setting(plan), *absent, *stopped, *left, *_arithmetics(runs, failed), *_without_tasks(table, runs)]


def _arithmetics(runs: Sequence[Run], failed: Mapping[Run, str]) -> list[str]:
    finished = [run for run in runs if run.is_finished and run not in failed]
    found = sorted({read_environment(run.folder).get("precision", "unknown") for run in finished})
    return [f"Trained in different arithmetics: {', '.join(found)}."] if len(found) > 1 else []


def _without_tasks(table: PaperTable, runs: Sequence[Run]) -> list[str]:
    columns: list[Column] = [column for column in table.columns if column.metric[0] == HPATCHES]
    scored = next((run for run in runs if run.is_finished and run.hpatches), None)
    lacking = [column.metric[1] for column in columns if scored and figure_of(scored, column.metric) is None]
    return [f"HPatches' task files of {task} are missing: put the benchmark's tasks into the release." for task in lacking]
