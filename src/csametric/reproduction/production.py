"""Tables and figures of the paper from a plan: run what is missing, then write tables, pictures and a report."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from csametric.errors import BusyError, UserError
from csametric.files import lock_folder, write_atomically
from csametric.reports.attention_report import figure_5
from csametric.reproduction import diagrams
from csametric.reproduction.comparison import FilledTable
from csametric.reproduction.execution import execute_runs
from csametric.reproduction.output import SPEED, filled_table, write_report, write_table
from csametric.reproduction.paper import FIGURE5, PaperTable
from csametric.reproduction.plan import Plan, Run
from csametric.reproduction.rendering import as_text
from csametric.reproduction.speed import measure
from csametric.runs.environment import describe_environment
from csametric.training.machine import join_processes
from csametric.visualization.figures import data_uri, save_figure

Announce = Callable[[str], None]  # called with each line that the user should see


def produce_tables(
    target: str, tables: Sequence[PaperTable], selected: Sequence[PaperTable], plan: Plan, out: Path, announce: Announce
) -> None:
    """Run what tables need and write them to a folder: tableN.txt, .csv and .tex, and one HTML report.

    Args:
        target: "table1" to "table8" or "all"; the report is named after it.
        tables: the tables of the target, with all rows that are written.
        selected: the same tables with only the rows that are run; other rows show what is finished already.
        plan: the runs of the tables.
        out: the folder of the reproduction.
        announce: shows a line to the user.

    Raises:
        UserError: a run failed, or nothing could be run; whatever can be written is written first.
    """
    failed: dict[Run, str] = {}
    for table, rows_to_run in zip(tables, selected, strict=True):
        if table.name == "table6":
            _measure_speed(plan, out, announce)
        else:
            runs = plan.for_table(rows_to_run)
            finished = [run for run in plan.for_table(table) if run.is_finished and run not in runs]
            failed |= execute_runs([*runs, *finished], plan.budget)
        with lock_folder(out, wait=True):
            _fill_and_write([table], plan, out, failed)
    if target == "all":
        draw_diagrams(list(diagrams.DIAGRAMS), out, announce)

    # write all tables again, because another process may have finished the runs that were left to it
    with lock_folder(out, wait=True):
        filled = _fill_and_write(tables, plan, out, failed)
        announce("".join(f"\n{as_text(table)}" for table in filled))
        without_failed = plan.without_runs(failed)
        _write_report(
            target, filled, without_failed, _figure_5_for_report(target, without_failed, out, announce), out, announce
        )
    has_results = any(cell.ours for table in filled for cell in table.cells.values())
    _check_outcome([run for table in selected for run in plan.for_table(table)], failed, has_results, plan, announce)


def _fill_and_write(tables: Sequence[PaperTable], plan: Plan, out: Path, failed: Mapping[Run, str]) -> list[FilledTable]:
    filled = [filled_table(table, plan, out, failed) for table in tables]
    for table in filled:
        write_table(table, out)
    return filled


def _measure_speed(plan: Plan, out: Path, announce: Announce) -> None:
    try:
        with lock_folder(out / SPEED):
            measure(out / SPEED, plan.budget)
    except BusyError as error:
        announce(f"left to another process: {error}")


def _write_report(
    target: str,
    filled: Sequence[FilledTable],
    plan: Plan,
    pictures: Sequence[tuple[str, str]],
    out: Path,
    announce: Announce,
) -> None:
    machine = join_processes()
    if target == "all":
        title, path = "The paper's tables", out / "report.html"
    else:
        title, path = f"The paper's {target.replace('table', 'Table ')}", out / f"{target}.html"
    environment = describe_environment(machine.device, machine.precision)
    write_report(title, filled, list(plan.runs.values()), pictures, environment, path)
    announce(f"open {path}")


def _figure_5_for_report(target: str, plan: Plan, out: Path, announce: Announce) -> list[tuple[str, str]]:
    """Figure 5 as the pictures of the report over all tables; empty for other targets or if it cannot be drawn."""
    if target != "all":
        return []
    try:
        picture = _draw_figure_5(plan, out, announce)
    except UserError as error:
        announce(f"left out: Figure 5, {error}")
        return []
    return [picture] if picture else []


def produce_figure_5(plan: Plan, out: Path, announce: Announce) -> None:
    """Train the run that Figure 5 is drawn from, unless it is finished, and write figure5.png.

    Args:
        plan: the runs of `FIGURE5`.
        out: the folder of the reproduction.
        announce: shows a line to the user.

    Raises:
        UserError: the run failed, or could not be run.
    """
    runs = plan.for_table(FIGURE5)[:1]
    failed = execute_runs(runs, plan.budget)
    with lock_folder(out, wait=True):
        picture = _draw_figure_5(plan.without_runs(failed), out, announce)
    _check_outcome(runs, failed, picture is not None, plan, announce)


def _draw_figure_5(plan: Plan, out: Path, announce: Announce) -> tuple[str, str] | None:
    """Draw Figure 5 from the first finished run of PCB + CSA.

    Returns:
        Its data URI and caption; None if no such run is finished.
    """
    run = next((run for run in plan.for_table(FIGURE5) if run.is_finished), None)
    if run is None:
        for reason in dict.fromkeys(plan.missing.values()):
            announce(f"left out: {reason}")
        return None
    figure, caption = figure_5(run.folder)
    save_figure(figure, out / "figure5.png")
    announce(f"written: {out / 'figure5.png'}")
    return data_uri(figure), caption


def draw_diagrams(names: Sequence[str], out: Path, announce: Announce) -> None:
    """Write diagrams of `diagrams.DIAGRAMS` to a folder as NAME.svg."""
    for name in names:
        content = diagrams.svg(diagrams.DIAGRAMS[name]())
        write_atomically(out / f"{name}.svg", lambda file, content=content: file.write(content))  # type: ignore[misc]
        announce(f"written: {out / f'{name}.svg'}")


def _check_outcome(runs: Collection[Run], failed: Mapping[Run, str], has_results: bool, plan: Plan, announce: Announce) -> None:
    """Announce the runs that other processes are still working on.

    Raises:
        UserError: a run failed, or nothing could be run.
    """
    busy = [run for run in dict.fromkeys(runs) if not run.is_finished and run not in failed]
    for run in busy:
        announce(f"left to another process: {run.folder.name}")
    if failed:
        count = "1 run" if len(failed) == 1 else f"{len(failed)} runs"
        raise UserError(f"{count} failed; the first error: {next(iter(failed.values()))}")
    if not has_results and not busy:
        raise UserError(f"nothing could be run: {next(iter(plan.missing.values()), 'choose other rows')}")
