"""reproduce: a table or figure of the paper by one command, with our results beside the paper's."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from csametric.cli.lazy import lazy_imports
from csametric.cli.tables import print_table
from csametric.errors import UserError, wrong_path
from csametric.progress import show_progress
from csametric.reproduction.targets import Target, select_rows, tables_for

with lazy_imports():
    from csametric.reproduction import collection, diagrams, execution, paper, places, production
    from csametric.reproduction import estimate as estimation
    from csametric.reproduction import plan as planning

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
        typer.Option("--budget", help="full: the paper's setting; quick: for a CPU; tiny: a few steps, to try the pipeline."),
    ] = "full",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of seeds per row; N runs seeds 0 to N-1.")] = 1,
    row: Annotated[
        list[str] | None, typer.Option("--row", help="Run only this row, e.g. 'PCB + CSA'; repeatable.", metavar="LABEL")
    ] = None,
    paper_only: Annotated[bool, typer.Option("--paper-only", help="Leave out the rows that are not in the paper.")] = False,
    collect: Annotated[
        list[Path] | None,
        typer.Option(
            "--collect", help="Use finished runs of the same settings from this folder; repeatable.", metavar="FOLDER"
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="A file of ResNet-50's ImageNet weights, for --budget full without internet."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would run and how long it would take on this machine.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", help="The folder for runs, tables and report.html.")] = OUT,
) -> None:
    """Reproduce a table or figure of the paper: run what is missing, then write text, CSV, LaTeX and an HTML report.

    Our results stand beside the paper's. Rows whose dataset is missing are left out, with a note on what to download. The same
    command resumes after an interruption. Processes under torchrun or in several terminals share the runs.

    Example: csametric reproduce table1 --data-root /data --budget quick --row PCB --row "PCB + CSA"
    """
    if target in diagrams.DIAGRAMS:
        production.draw_diagrams([target], out, print)
        return
    was_in_group = execution.leave_torchrun_group()
    tables = tables_for(target, paper_only)
    selected = select_rows(target, tables, row)
    out = out / budget
    plan = planning.make_plan(tables, _check_root(data_root, selected), out, budget, seeds, _check_weights(weights))
    collected = _collect(collect, plan, dry_run) if collect else []
    if dry_run:
        _print_plan(selected, plan, collected, out)
        return
    try:
        _produce(target, tables, selected, plan, out)
    except UserError as error:
        if not was_in_group:
            raise
        print(f"csametric: {error}", file=sys.stderr)  # an exit status other than 0 would make torchrun stop all processes


def _produce(
    target: Target, tables: list[paper.PaperTable], selected: list[paper.PaperTable], plan: planning.Plan, out: Path
) -> None:
    if target == "figure5":
        production.produce_figure_5(plan, out, print)
    else:
        production.produce_tables(target, tables, selected, plan, out, print)


def _check_root(data_root: Path | None, tables: Sequence[paper.PaperTable]) -> Path:
    if data_root is not None:
        places.check_root(data_root)
        return data_root
    if any(planning.data_of(table) for table in tables):
        raise UserError("give the folder that holds the datasets with --data-root ROOT")
    return Path()


def _check_weights(weights: Path | None) -> Path | None:
    if weights is not None and not weights.is_file():
        raise UserError(f"{wrong_path('--weights', weights)}; give a .pth or .safetensors with ResNet-50's ImageNet weights")
    return weights


def _collect(folders: Sequence[Path], plan: planning.Plan, dry_run: bool) -> list[planning.Run]:
    collected = collection.collect(folders, list(plan.runs.values()), copy=not dry_run)
    for run in collected.runs:
        print(f"{'would be collected' if dry_run else 'collected'}: {run.folder.name}")
    for reason in collected.skipped:
        print(f"not collected: {reason}")
    if not collected.runs:
        print("collected: nothing, because no finished run has the same settings (budget and seed included) as a planned one")
    return collected.runs


def _print_plan(
    tables: Sequence[paper.PaperTable], plan: planning.Plan, collected: Collection[planning.Run], out: Path
) -> None:
    """Print which runs are left and how long they would take."""
    runs = [run for run in plan.runs.values() if any(run in plan.for_table(table) for table in tables)]
    estimates = list(show_progress(estimation.estimate_runs(runs, collected, out), "measuring", len(runs), enabled=True))
    rows = [
        [
            estimate.run.folder.name.rpartition("-")[0],
            _state(estimate),
            f"{estimate.work.train:,}",
            _duration(estimate.seconds),
        ]
        for estimate in estimates
    ]
    if runs:
        print_table("plan", ["run", "state", "images or pairs to train on", "time on this machine"], rows)
    for reason in dict.fromkeys(plan.missing.values()):
        print(f"left out: {reason}")
    if any(table.name == "table6" for table in tables):
        print("Table 6 also runs the benchmarks memory and model, which take a few minutes that are not counted here.")
    if not runs:
        print("nothing to run")
        return
    total = _duration(sum(estimate.seconds for estimate in estimates))
    print(f"total: {total} of training and scoring, extrapolated from two steps, plus a few seconds per run")


def _state(estimate: estimation.Estimate) -> str:
    if estimate.is_collected:
        return "to be collected"
    if estimate.run.is_finished:
        return "finished"
    return f"stopped at step {estimate.run.steps_done:,}" if estimate.run.steps_done else "to do"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
