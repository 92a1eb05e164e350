"""reproduce: a table or figure of the paper by one command, ours beside the paper's."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from csametric.cli.tables import print_table
from csametric.errors import BusyError, UserError
from csametric.files import lock_folder, write_atomically
from csametric.progress import show_progress
from csametric.reports.attention_report import figure_5, save_figure
from csametric.reproduction import diagrams
from csametric.reproduction.collection import collect
from csametric.reproduction.comparison import FilledTable
from csametric.reproduction.estimate import Work, pace_of, work_left
from csametric.reproduction.execution import execute_runs, leave_torchrun_group
from csametric.reproduction.output import SPEED, filled_table, write_report, write_table
from csametric.reproduction.paper import FIGURE5, TABLES, PaperTable
from csametric.reproduction.plan import Plan, Run, data_of, make_plan
from csametric.reproduction.rendering import as_text
from csametric.reproduction.speed import measure
from csametric.runs.environment import describe_environment
from csametric.training.machine import join_processes
from csametric.visualization.figures import data_uri

Target = Literal[
    "table1", "table2", "table3", "table4", "table5", "table6", "table7", "table8",
    "figure1", "figure2", "figure3", "figure4", "figure5", "all",
]  # fmt: skip
DIAGRAMS = ("figure1", "figure2", "figure3", "figure4")
OUT = Path("runs") / "reproduce"


def reproduce(
    target: Annotated[Target, typer.Argument(help="A table or figure of the paper, or all of them.")],
    data_root: Annotated[
        Path | None,
        typer.Option(
            "--data-root", help="The folder that holds Market-1501, DukeMTMC-reID, CUHK03-NP, brown, hpatches-release."
        ),
    ] = None,
    budget: Annotated[
        Literal["full", "quick", "tiny"],
        typer.Option("--budget", help="full: as the paper sets it; quick: for a CPU; tiny: to try the way there."),
    ] = "full",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds 0, 1, ... for every row.")] = 1,
    row: Annotated[
        list[str] | None, typer.Option("--row", help="Only this row, e.g. 'PCB + CSA'; repeatable.", metavar="LABEL")
    ] = None,
    paper_only: Annotated[bool, typer.Option("--paper-only", help="Leave out the rows that are ours.")] = False,
    collect: Annotated[
        list[Path] | None,
        typer.Option(
            "--collect", help="Take finished runs of the same settings from this folder; repeatable.", metavar="FOLDER"
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="A file of ResNet-50's ImageNet weights, where there is no network; budget full."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run and how long it takes here, measured by a few steps.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", help="Where runs, tables and report.html go.")] = OUT,
) -> None:
    """Run what a table needs and is not there yet, and write it: text, CSV, LaTeX and a report.

    Each row stands beside the paper's figure; rows whose dataset is missing are left out, with what to get. The same command
    goes on where it was stopped. Under torchrun, or from several terminals, each process takes the next run that is free.

    Example: csametric reproduce table1 --data-root /data --budget quick --row PCB --row "PCB + CSA"
    """
    if target in DIAGRAMS:
        _draw_diagrams([target], out)
        return
    in_group = leave_torchrun_group()
    tables = _tables(target, paper_only)
    chosen = _chosen(target, tables, row)
    root = _root(data_root, chosen)
    out = out / budget
    if weights is not None and not weights.is_file():
        raise UserError(f"there is no file {weights}; give ResNet-50's ImageNet weights, a .pth or .safetensors")
    plan = make_plan(tables, root, out, budget, seeds, weights)
    found = _collect(collect, plan, dry_run) if collect else []
    if dry_run:
        _print_plan(chosen, plan, found, out)
        return
    try:
        if target == "figure5":
            _produce_figure_5(plan, out)
        else:
            _produce(target, tables, chosen, plan, out)
    except UserError as error:
        if not in_group:
            raise
        print(f"csametric: {error}", file=sys.stderr)  # torchrun stops all processes where one exits with another status than 0


def _tables(target: str, paper_only: bool) -> list[PaperTable]:
    """The tables that a target needs."""
    if target == "figure5":
        return [FIGURE5]
    tables = list(TABLES.values()) if target == "all" else [TABLES[target]]
    return [table.of_rows(None, paper_only) for table in tables]


def _chosen(target: str, tables: list[PaperTable], labels: list[str] | None) -> list[PaperTable]:
    """The tables with the rows that are to be run; the others show what is there."""
    known = {each.label for table in tables for each in table.rows}
    unknown = next((label for label in labels or [] if label not in known), None)
    if unknown:
        raise UserError(f"there is no row {unknown!r} in {target}; use one of {', '.join(map(repr, sorted(known)))}")
    return [table.of_rows(labels, paper_only=False) for table in tables]


def _root(data_root: Path | None, tables: list[PaperTable]) -> Path:

    if data_root is None and not any(data_of(table) for table in tables):
        return Path()
    if data_root is None:
        raise UserError("name the folder of the datasets: --data-root ROOT")
    if not data_root.is_dir():
        raise UserError(f"there is no folder {data_root}; name the one that holds the datasets")
    if any((data_root / name).exists() for name in ("bounding_box_train", "detected", "liberty", "i_ajuntament")):
        raise UserError(f"{data_root} is a dataset; name the folder above, {data_root.resolve().parent}")
    return data_root


def _collect(folders: list[Path], plan: Plan, dry_run: bool) -> list[Run]:

    found, passed_over = collect(folders, list(plan.runs.values()), copy=not dry_run)
    for run in found:
        print(f"{'would be collected' if dry_run else 'collected'}: {run.folder.name}")
    for reason in passed_over:
        print(f"not collected: {reason}")
    if not found:
        print("collected: nothing; no finished run there has the settings (budget and seeds too) of one that is wanted")
    return found


def _print_plan(tables: list[PaperTable], plan: Plan, found: list[Run], out: Path) -> None:
    """What would run, and how long it takes, but for what is found elsewhere."""
    rows, total = [], 0.0
    runs = [run for run in plan.runs.values() if any(run in plan.for_table(table) for table in tables)]
    for run in show_progress(runs, "measuring", len(runs), enabled=True):
        work = Work(0, 0) if run in found else work_left(run)
        seconds = work.seconds(pace_of(run, out / "paces.json")) if work.train or work.score else 0.0
        rows.append([run.folder.name.rpartition("-")[0], _state(run, found), f"{work.train:,}", _duration(seconds)])
        total += seconds
    print_table("plan", ["run", "state", "images or pairs to train on", "time on this machine"], rows)
    for reason in dict.fromkeys(plan.missing.values()):
        print(f"left out: {reason}")
    if any(table.name == "table6" for table in tables):
        print("Table 6 runs the benchmarks memory and model, a few minutes, not counted here.")
    print(f"in all {_duration(total)} of training and scoring, by two measured steps of each kind, and some seconds a run more")


def _state(run: Run, found: list[Run]) -> str:
    if run in found:
        return "to be collected"
    return "finished" if run.is_finished else f"begun, step {run.steps_done:,}" if run.steps_done else "to do"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _produce(target: str, tables: list[PaperTable], chosen: list[PaperTable], plan: Plan, out: Path) -> None:
    """Carry out the plan table by table, then write all again: another process may have finished what was left to it.

    Raises:
        UserError: something has failed, or nothing could be run; what could be written is written.
    """
    failed: dict[Run, str] = {}
    for table, wanted in zip(tables, chosen, strict=True):
        if table.name == "table6":
            _measure_speed(plan, out)
        else:
            runs = plan.for_table(wanted)
            shown = [run for run in plan.for_table(table) if run.is_finished and run not in runs]
            failed |= execute_runs([*runs, *shown], plan.budget)
        _write_tables([table], plan, out, failed)
    if target == "all":
        _draw_diagrams(DIAGRAMS, out)
    filled = _write_tables(tables, plan, out, failed, target)
    any_figure = any(cell.ours for each in filled for cell in each.cells.values())
    _check_outcome([run for table in chosen for run in plan.for_table(table)], failed, any_figure, plan)


def _write_tables(
    tables: list[PaperTable], plan: Plan, out: Path, failed: dict[Run, str], target: str = ""
) -> list[FilledTable]:
    """Tables, and the report of a target; other processes that write wait meanwhile."""
    with lock_folder(out, wait=True):
        filled = [filled_table(table, plan, out, failed) for table in tables]
        for each in filled:
            write_table(each, out)
        if target:
            print("".join(f"\n{as_text(each)}" for each in filled))
            _write_report(target, filled, plan.without(failed), _pictures(target, plan.without(failed), out), out)
    return filled


def _pictures(target: str, plan: Plan, out: Path) -> list[tuple[str, str]]:

    try:
        picture = _draw_attention(plan, out) if target == "all" else None
    except UserError as error:
        print(f"left out: Figure 5, {error}")
        return []
    return [picture] if picture else []


def _produce_figure_5(plan: Plan, out: Path) -> None:
    """Train what the figure is drawn of, one run, and draw it; raises as `_produce`."""
    runs = plan.for_table(FIGURE5)[:1]
    failed = execute_runs(runs, plan.budget)
    with lock_folder(out, wait=True):
        picture = _draw_attention(plan.without(failed), out)
    _check_outcome(runs, failed, picture is not None, plan)


def _check_outcome(wanted: list[Run], failed: dict[Run, str], any_figure: bool, plan: Plan) -> None:
    """Say what other processes still work on.

    Raises:
        UserError: something has failed, or nothing could be run.
    """
    busy = [run for run in dict.fromkeys(wanted) if not run.is_finished and run not in failed]
    for run in busy:
        print(f"left to another process: {run.folder.name}")
    if failed:
        raise UserError(f"{len(failed)} runs have failed, the first: {next(iter(failed.values()))}")
    if not any_figure and not busy:
        raise UserError(f"nothing could be run; {next(iter(plan.missing.values()), 'choose other rows')}")


def _measure_speed(plan: Plan, out: Path) -> None:

    try:
        with lock_folder(out / SPEED):
            measure(out / SPEED, plan.budget)
    except BusyError as error:
        print(f"left to another process: {error}")


def _draw_attention(plan: Plan, out: Path) -> tuple[str, str] | None:
    """Figure 5 from the first finished run of PCB + CSA: its data URI and caption; None where there is none."""
    run = next((run for run in plan.for_table(FIGURE5) if run.is_finished), None)
    if run is None:
        for reason in dict.fromkeys(plan.missing.values()):
            print(f"left out: {reason}")
        return None
    figure, caption = figure_5(run.folder)
    save_figure(figure, out / "figure5.png")
    print(f"written: {out / 'figure5.png'}")
    return data_uri(figure), caption


def _draw_diagrams(names: Sequence[str], out: Path) -> None:

    for name in names:
        drawn = diagrams.svg(diagrams.DIAGRAMS[name]())
        write_atomically(out / f"{name}.svg", lambda file, drawn=drawn: file.write(drawn))  # type: ignore[misc]
        print(f"written: {out / f'{name}.svg'}")


def _write_report(target: str, filled: list[FilledTable], plan: Plan, pictures: list[tuple[str, str]], out: Path) -> None:

    machine = join_processes()
    title = "The paper's tables" if target == "all" else f"The paper's {target.replace('table', 'Table ')}"
    path = out / ("report.html" if target == "all" else f"{target}.html")
    values = describe_environment(machine.device, machine.precision)
    write_report(title, filled, list(plan.runs.values()), pictures, values, path)
    print(f"open {path}")
