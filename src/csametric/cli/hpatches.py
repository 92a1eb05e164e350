"""hpatches: write descriptors in the benchmark's layout, and score them on its three tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from csametric.cli.lazy import lazy_imports
from csametric.cli.tables import print_table
from csametric.errors import UserError, wrong_path
from csametric.files import lock_folder
from csametric.progress import show_progress

with lazy_imports():
    from csametric.data import hpatches as benchmark
    from csametric.matching import descriptors as descriptors_by_name
    from csametric.reports import hpatches_scores

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def hpatches() -> None:
    """Extract and score descriptors on HPatches.

    Example: csametric hpatches extract runs/hardnet_csa /data/hpatches-release descriptors/hardnet_csa
    """


@app.command()
def extract(
    descriptor: Annotated[str, typer.Argument(help="A folder that `train` wrote; or sift, or rootsift.", metavar="RUN")],
    root: Annotated[Path, typer.Argument(help="The patch release: one folder per sequence.")],
    out: Annotated[
        Path, typer.Argument(help="The folder for the descriptors: one folder per sequence, one .csv per kind of patch.")
    ],
) -> None:
    """Write the descriptors of all patches in the benchmark's layout, to score them with this or another program.

    Example: csametric hpatches extract runs/hardnet_csa /data/hpatches-release descriptors/hardnet_csa
    """
    describe = descriptors_by_name.find_descriptor(descriptor).describe_patches
    names = benchmark.find_sequences(root)
    with lock_folder(out):
        for name in show_progress(names, "describing", len(names), enabled=True):
            benchmark.write_descriptors(out / name, benchmark.describe_sequence(root / name, describe))
    print(f"{len(names):,} sequences: {out}")


@app.command()
def score(
    descriptors: Annotated[
        Path, typer.Argument(help="One folder per sequence with ref.csv, e1.csv ... t5.csv, written by any program.")
    ],
    tasks: Annotated[Path, typer.Option("--tasks", help="The folder of the benchmark's task files, or the folder above it.")],
    split: Annotated[str | None, typer.Option("--split", help="a, b, c, illum, view or full; by default a and full.")] = None,
) -> None:
    """Score extracted descriptors on the benchmark's three tasks: verification, matching and retrieval.

    Example: csametric hpatches score descriptors/hardnet_csa --tasks /data/hpatches-benchmark/tasks
    """
    if split is not None and split not in benchmark.read_splits():
        raise UserError(f"unknown split {split}; use one of {', '.join(benchmark.read_splits())}")
    if not tasks.is_dir():
        raise UserError(
            f"{wrong_path('folder', tasks)}; give the folder of the task files, or any other folder to run without them"
        )
    names = benchmark.find_sequences(descriptors)
    progress = show_progress(names, "reading", len(names), enabled=True)
    sequences = {name: benchmark.read_descriptors(descriptors / name) for name in progress}
    evaluation = hpatches_scores.hpatches_evaluation(
        descriptors.name, sequences, tasks, (split,) if split else hpatches_scores.PRINTED_SPLITS
    )
    print_table(evaluation.title, evaluation.table.header, evaluation.table.rows)
