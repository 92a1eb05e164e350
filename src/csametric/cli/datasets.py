"""data check, embed: commands about images."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from csametric.cli.tables import print_table
from csametric.data.datasets import read_dataset
from csametric.data.inspection import Inspection, inspect
from csametric.data.listing import SUFFIXES, list_images
from csametric.data.loading import in_batches, prefetch
from csametric.data.records import ReidDataset
from csametric.data.transforms import read_image
from csametric.errors import UserError
from csametric.files import lock_folder, printable, write_atomically, write_text
from csametric.inference.images import EMBED_BATCH, ImageEmbedder
from csametric.inference.load import load
from csametric.progress import data_progress, show_progress
from csametric.reports.attention_report import save_figure
from csametric.visualization.figures import contact_sheet

app = typer.Typer(help="Look at datasets.", no_args_is_help=True)
SHOWN = 10
SHEET_IMAGES = 48


@app.callback()
def data() -> None:
    """Look at datasets."""


@app.command()
def check(
    dataset: Annotated[
        str, typer.Argument(help="For example market1501:/data/Market-1501 or folder:mine.", metavar="KIND:PATH")
    ],
    out: Annotated[Path, typer.Option("--out", help="Where the contact sheet goes.")] = Path("contact_sheet.png"),
) -> None:
    """Count a dataset's images against what was published, find broken and doubled files, draw a contact sheet.

    Example: csametric data check cuhk03-detected:/data/cuhk03-np
    """
    found = read_dataset(*split_data(dataset))
    with data_progress(True, "reading", "files") as progress:
        inspection = inspect(found, progress)
    header = ["split", "images", "identities", "junk", "distractors", "cameras", "images an identity", "on one camera only"]
    rows = [
        [
            name,
            f"{split.images:,}",
            f"{split.identities:,}",
            f"{split.junk:,}",
            f"{split.distractors:,}",
            ", ".join(f"{camera}: {count:,}" for camera, count in split.cameras.items()),
            f"{split.per_identity[0]} to {split.per_identity[2]}, median {split.per_identity[1]}",
            f"{split.one_camera:,}",
        ]
        for name, split in inspection.splits.items()
    ]
    print(found)
    print_table(found.name, header, rows)
    _print_problems(inspection)
    _save_sheet(found, inspection, out)


def embed(
    run: Annotated[Path, typer.Argument(help="A re-identification run, e.g. runs/pcb_csa.")],
    folder: Annotated[Path, typer.Argument(help="A folder of images; folders inside it are searched too.")],
    out: Annotated[Path, typer.Option("--out", help="x.npy (with x.txt, the files) or x.parquet.")],
    flip: Annotated[bool, typer.Option("--flip", help="Average the features of an image and its mirror image.")] = False,
) -> None:
    """Write the features of all images of a folder: a row an image, each of its parts of unit length, for Euclidean distances.

    Example: csametric embed runs/pcb_csa photos --out features.npy
    """
    if out.suffix not in (".npy", ".parquet"):
        raise UserError(f"--out {out} is neither .npy nor .parquet; choose one")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name one that holds images")

    model = load(run)
    if not isinstance(model, ImageEmbedder):
        raise UserError(f"{run} describes patches, not images; use csametric.load({str(run)!r}).embed(patches)")
    files = list_images(folder).images
    if not files:
        raise UserError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}); name a folder that does")
    names, features, unreadable = _embed_files(model, files, flip)
    _save_features(out, [path.relative_to(folder).as_posix() for path in names], features)
    print(f"{len(names):,} images, {features.shape[1]:,} dimensions: {out}")
    for problem in unreadable:
        print(f"skipped: {problem}")


def _embed_files(model: ImageEmbedder, files: list[Path], flip: bool) -> tuple[list[Path], "NDArray", list[str]]:
    """The files that could be read, their features, and why the others could not."""
    height, width = model.experiment.data.height, model.experiment.data.width

    def read(batch: Sequence[Path]) -> list["NDArray | str"]:
        read: list[NDArray | str] = []
        for path in batch:
            try:
                read.append(read_image(path, height, width))
            except UserError as error:
                read.append(str(error))
        return read

    batches = in_batches(files, EMBED_BATCH)
    names, features, unreadable = [], [], []
    for batch, images in zip(batches, show_progress(prefetch(read, batches), "embedding", len(batches), True), strict=True):
        whole = [(path, image) for path, image in zip(batch, images, strict=True) if not isinstance(image, str)]
        unreadable += [image for image in images if isinstance(image, str)]
        if whole:
            names += [path for path, _ in whole]
            features.append(model.embed(np.stack([image for _, image in whole]), flip=flip).numpy())
    if not features:
        raise UserError(f"none of the {len(files):,} images can be read ({unreadable[0]})")
    return names, np.concatenate(features), unreadable


def split_data(data: str) -> tuple[str, str]:
    """KIND and PATH of "KIND:PATH", the path absolute."""
    kind, separator, path = data.partition(":")
    if not separator or not path:
        raise UserError(f"{data!r} names no dataset; write KIND:PATH, for example market1501:/data/Market-1501")
    return kind, str(Path(path).expanduser().resolve())


def _print_problems(inspection: Inspection) -> None:
    for title, lines in (
        ("unreadable files", list(inspection.unreadable.values())),
        ("files alike in two splits", [" = ".join(pair) for pair in inspection.duplicates]),
        ("queries without a match in the gallery", inspection.unmatched),
    ):
        print(f"{len(lines):,} {title}{':' if lines else ''}")
        for line in lines[:SHOWN]:
            print(f"  {line}")
        if len(lines) > SHOWN:
            print(f"  and {len(lines) - SHOWN:,} more")


def _save_sheet(dataset: ReidDataset, inspection: Inspection, out: Path) -> None:

    records = [record for record in (*dataset.train, *dataset.query) if str(record.path) not in inspection.unreadable]
    if not records:
        print("no image can be read, so there is no contact sheet")
        return
    chosen = np.linspace(0, len(records) - 1, min(SHEET_IMAGES, len(records))).astype(int)
    shown = [records[number] for number in chosen]
    figure = contact_sheet(
        [read_image(record.path, 192, 64) for record in shown],
        [f"{_name(dataset, record.identity)}, camera {record.camera}" for record in shown],
    )
    save_figure(figure, out)
    print(f"contact sheet: {out}")


def _name(dataset: ReidDataset, identity: int) -> str:
    return dataset.names[identity - 1] if dataset.names else str(identity)


def _save_features(out: Path, names: list[str], features: NDArray) -> None:

    if out.suffix == ".npy":
        serialised = io.BytesIO()
        np.save(serialised, features)
        with lock_folder(out.parent, wait=True):  # both files are of one call
            write_atomically(out, lambda file: file.write(serialised.getbuffer()))
            write_text(out.with_suffix(".txt"), "".join(f"{printable(name)}\n" for name in names))
        return
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError("writing .parquet needs pyarrow; install csametric[parquet], or write .npy") from error
    table = pyarrow.table({"path": [printable(name) for name in names], "features": list(features)})
    write_atomically(out, lambda file: parquet.write_table(table, file))
