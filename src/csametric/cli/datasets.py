"""data check, embed: commands about images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import csametric
from csametric.cli.lazy import lazy_imports
from csametric.cli.tables import print_table
from csametric.data.listing import SUFFIXES, describe_skipped, list_images
from csametric.errors import UserError, wrong_path
from csametric.progress import show_data_progress

with lazy_imports():
    from csametric.data import datasets as readers
    from csametric.data import inspection
    from csametric.inference import feature_files, images
    from csametric.reports import dataset_report
    from csametric.training import machine as machines

Dimensions = Annotated[
    int | None, typer.Option("--dimensions", help="Compact features with this many dimensions, e.g. 512.", show_default="all")
]
Engine = Annotated[
    Literal["torch", "onnxruntime", "onnxruntime-int8"],
    typer.Option(
        "--engine",
        help="What computes the features: onnxruntime is faster on processors without bf16 units, onnxruntime-int8 is faster "
        "still and less accurate. Their first use writes an ONNX model into the run.",
    ),
]
Whiten = Annotated[bool, typer.Option("--whiten", help="Give each dimension of compact features the same variance.")]

app = typer.Typer(no_args_is_help=True, add_completion=False)
PRINTED_PROBLEMS = 10  # of each kind


@app.callback()
def data() -> None:
    """Inspect datasets.

    Example: csametric data check market1501:/data/Market-1501
    """


CameraPattern = Annotated[
    str | None,
    typer.Option(
        "--camera-pattern",
        help="For folder: a regular expression whose capture group matches the camera in a file's name, e.g. 'view(\\d+)'.",
        metavar="REGEX",
    ),
]


@app.command()
def check(
    dataset: Annotated[
        str, typer.Argument(help="For example market1501:/data/Market-1501 or folder:mine.", metavar="KIND:PATH")
    ],
    out: Annotated[Path, typer.Option("--out", help="The contact sheet to write, a .png, .pdf or .svg.")] = Path(
        "contact_sheet.png"
    ),
    camera_pattern: CameraPattern = None,
) -> None:
    """Check a dataset: compare its counts with the published ones, if any; find damaged and duplicate files; draw samples.

    Example: csametric data check cuhk03-detected:/data/cuhk03-np
    """
    contents = readers.read_dataset(*readers.split_data(dataset, readers.READERS), camera_pattern or "")
    with show_data_progress(True, "reading", "files") as progress:
        checked = inspection.inspect(contents, progress)
    table = dataset_report.inspection_table(checked)
    print(contents)
    print_table(contents.name, table.header, table.rows)
    _print_problems(checked)
    if dataset_report.write_contact_sheet(contents, checked, out):
        print(f"contact sheet: {out}")
    else:
        print("contact sheet: not drawn, because no image can be read")


def _print_problems(checked: inspection.Inspection) -> None:
    for kind, problems in dataset_report.problems_by_kind(checked).items():
        print(f"{kind}: {len(problems):,}")
        for problem in problems[:PRINTED_PROBLEMS]:
            print(f"  {problem}")
        if len(problems) > PRINTED_PROBLEMS:
            print(f"  and {len(problems) - PRINTED_PROBLEMS:,} more")


def embed(
    run: Annotated[Path, typer.Argument(help="A re-identification run, e.g. runs/pcb_csa.")],
    folder: Annotated[Path, typer.Argument(help="A folder of images; its subfolders are searched too.")],
    out: Annotated[
        Path, typer.Option("--out", help="The file to write: .npy, with the image names in a .txt beside it, or .parquet.")
    ],
    flip: Annotated[bool, typer.Option("--flip", help="Average the features of each image and its mirror image.")] = False,
    dimensions: Dimensions = None,
    whiten: Whiten = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Write 16-bit numbers, half the size.")] = False,
    engine: Engine = "torch",
) -> None:
    """Write the features of all images in a folder, one row per image, to be compared by Euclidean distance.

    A feature consists of one unit-length vector per horizontal part of the image. After an interruption, run the same command
    again to resume. Processes under torchrun share the images.

    Example: csametric embed runs/pcb_csa photos --out features.npy
    """
    if out.suffix not in feature_files.SUFFIXES:
        raise UserError(f"--out must end in .npy or .parquet, got {out}")
    if not folder.is_dir():
        raise UserError(f"{wrong_path('folder', folder)}; give a folder of images")
    machine = machines.join_processes()
    model = csametric.load(run, machine.device, engine)
    if not isinstance(model, images.ImageEmbedder):
        raise UserError(f"{run} embeds patches, not images; in Python, use csametric.load({str(run)!r}).embed(patches)")
    listing = list_images(folder)
    files = listing.images
    if not files:
        raise UserError(f"{folder} contains no images ({', '.join(sorted(SUFFIXES))}); choose another folder")
    options = feature_files.FeatureOptions(flip=flip, dimensions=dimensions, whiten=whiten, fp16=fp16)
    share = feature_files.Share(machine.rank, machine.world_size, machine.accelerator.wait_for_everyone)
    written = feature_files.write_features(model, folder, files, out, options, share)
    if not machine.is_main:
        return
    rate = f", {written.per_second:,.0f} images/s" if written.per_second else ""
    print(f"{written.images:,} images, {written.dimensions:,} dimensions{rate}: {out}")
    for problem in [*written.problems, *describe_skipped([listing])]:
        print(f"skipped: {problem}")
