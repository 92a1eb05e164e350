"""hpatches: descriptors to the benchmark's layout and back, and its three tasks."""

from pathlib import Path
from typing import Annotated

import typer

from csametric.cli.tables import print_table
from csametric.data.hpatches import describe_sequence, find_sequences, read_descriptors, splits, write_descriptors
from csametric.errors import UserError
from csametric.matching.descriptors import find_descriptor
from csametric.progress import show_progress
from csametric.reports.hpatches_scores import PRINTED_SPLITS, hpatches_evaluation

app = typer.Typer(help="HPatches: extract descriptors, score them.", no_args_is_help=True)


@app.callback()
def hpatches() -> None:
    """HPatches: extract descriptors, score them."""


@app.command()
def extract(
    descriptor: Annotated[str, typer.Argument(help="A run's folder; or sift, or rootsift.", metavar="RUN")],
    root: Annotated[Path, typer.Argument(help="The patch release: a folder a sequence.")],
    out: Annotated[Path, typer.Argument(help="Where the descriptors go: a folder a sequence, a .csv a kind.")],
) -> None:
    """Write the descriptors of all patches in the benchmark's layout, to be scored here or elsewhere.

    Example: csametric hpatches extract runs/hardnet_csa /data/hpatches-release descriptors/hardnet_csa
    """
    describe = find_descriptor(descriptor).of_patches
    names = find_sequences(root)
    for name in show_progress(names, "describing", len(names), enabled=True):
        write_descriptors(out / name, describe_sequence(root / name, describe))
    print(f"{len(names):,} sequences: {out}")


@app.command()
def score(
    descriptors: Annotated[
        Path, typer.Argument(help="A folder a sequence with ref.csv, e1.csv ... t5.csv, made here or elsewhere.")
    ],
    tasks: Annotated[Path, typer.Option("--tasks", help="The folder of the benchmark's task files (or the one around it).")],
    split: Annotated[str | None, typer.Option("--split", help="a, b, c, illum, view or full; by default a and full.")] = None,
) -> None:
    """Score descriptors by verification, matching and retrieval.

    Example: csametric hpatches score descriptors/hardnet_csa --tasks /data/hpatches-benchmark/tasks
    """
    if split is not None and split not in splits():
        raise UserError(f"there is no split {split}; use one of {', '.join(splits())}")
    if not tasks.is_dir():
        raise UserError(f"there is no folder {tasks}; name the one of the benchmark's task files, or any other to do without")
    names = find_sequences(descriptors)
    read = {name: read_descriptors(descriptors / name) for name in show_progress(names, "reading", len(names), enabled=True)}
    evaluation = hpatches_evaluation(descriptors.name, read, tasks, (split,) if split else PRINTED_SPLITS)
    print_table(evaluation.title, evaluation.table.header, evaluation.table.rows)
