"""index, search, dedupe: galleries of embedded images."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from csametric.cli.datasets import Engine
from csametric.cli.lazy import lazy_imports
from csametric.cli.tables import print_table
from csametric.cli.verification import load_reid_model
from csametric.errors import UserError
from csametric.files import write_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

with lazy_imports():
    import numpy as np

    from csametric.data import transforms
    from csametric.inference import images
    from csametric.search import duplicates, gallery, indexing, reranking, rows
    from csametric.visualization import figures

PRINTED_GROUPS = 20
COLUMNS = 12  # of a contact sheet
HEIGHT, WIDTH = 128, 64  # of its pictures, pixels

GalleryPath = Annotated[
    str, typer.Argument(help="A file that `index` made, or the address of a Milvus server.", metavar="GALLERY")
]
RunOption = Annotated[
    Path | None,
    typer.Option("--run", help="The run that the gallery was indexed with, if it has moved.", metavar="RUN"),
]
Where = Annotated[
    str, typer.Option("--where", help="Only images that fulfil this, e.g. 'camera != 3 and time > 60'.", metavar="CONDITION")
]
Sheet = Annotated[Path | None, typer.Option("--sheet", help="Also draw the images into a .png, .pdf or .svg.", metavar="FILE")]


def index(
    run: Annotated[Path, typer.Argument(help="A re-identification run or bundle, e.g. runs/mine.")],
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of images; a .csv with the columns path and optionally identity, camera and time; or KIND:PATH."
        ),
    ],
    to: Annotated[
        str, typer.Option("--gallery", help="A file ending in .db, or the address of a Milvus server.", metavar="GALLERY")
    ],
    split: Annotated[
        Literal["gallery", "query", "train", "all"], typer.Option("--split", help="Which images of a dataset.")
    ] = "gallery",
    dimensions: Annotated[
        int | None,
        typer.Option("--dimensions", help="Of the compact features to store.", show_default="512, or as many as the run has"),
    ] = None,
    engine: Engine = "torch",
) -> None:
    """Embed images into a gallery, to be searched.

    Images that the gallery holds already are skipped. After an interruption, run the same command again to resume.

    Example: csametric index runs/mine photos --gallery people.db
    """
    found = indexing.find_images(source, split)
    model = load_reid_model(run, engine)
    size = _dimensions(model, dimensions)
    fingerprint = model.fingerprint(None if size == model.model.dimensions else size)
    with gallery.Gallery(to, size, model=fingerprint, run=run.expanduser().resolve()) as opened:
        done = indexing.index_images(opened, model, found.images)
        rows = opened.count()
    rate = f", {done.per_second:,.0f} images/s" if done.added else ""
    print(f"{done.added:,} images added, {done.present:,} there already{rate}: {to} holds {rows:,}")
    for problem in [*done.problems, *found.notes]:
        print(f"skipped: {problem}")


def _dimensions(model: images.ImageEmbedder, dimensions: int | None) -> int:
    """The number of dimensions to store: as asked for; else 512, or as many as the run has."""
    if dimensions is not None:
        model.compact_for(dimensions)
        return dimensions
    return min(gallery.DIMENSIONS, model.compact_dimensions) or model.model.dimensions


def search(
    path: GalleryPath,
    files: Annotated[list[Path], typer.Argument(help="Image files to look for.", metavar="IMAGE...")],
    k: Annotated[int, typer.Option("--k", help="How many images to find.")] = 10,
    where: Where = "",
    rerank: Annotated[bool, typer.Option("--rerank", help="Order the nearest images by k-reciprocal neighbours.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
    sheet: Sheet = None,
    run: RunOption = None,
) -> None:
    """Find the images of a gallery that are most alike.

    Example: csametric search people.db anna.jpg --where 'camera != 3'
    """
    with gallery.Gallery(path, create=False) as opened:
        model = _model_of(opened, run)
        opened.check_model(model)
        features = model.embed(files, dimensions=None if opened.dimensions == model.model.dimensions else opened.dimensions)
        if rerank:
            answers = reranking.search_reranked(opened, features.numpy(), k, where)
        else:
            answers = opened.search_features(features.numpy(), k, where)
    if as_json:
        found = [{"query": str(file), "hits": [vars(hit) for hit in hits]} for file, hits in zip(files, answers, strict=True)]
        print(json.dumps(found, indent=1))
    else:
        for file, hits in zip(files, answers, strict=True):
            _print_hits(str(file), hits)
    if sheet is not None:
        rows = [
            [(str(file), "query"), *((hit.path, f"{hit.distance:.3f}") for hit in hits)]
            for file, hits in zip(files, answers, strict=True)
        ]
        _draw(rows, sheet)


def _model_of(opened: gallery.Gallery, run: Path | None) -> images.ImageEmbedder:
    """The model that a gallery was indexed with.

    Raises:
        UserError: the gallery does not say, or the run has moved.
    """
    folder = run or (Path(opened.run) if opened.run else None)
    if folder is None:
        raise UserError(f"{opened.uri} does not say which run it was indexed with; give it with --run")
    if not folder.exists():
        raise UserError(f"the run {folder} has moved; give its folder with --run")
    return load_reid_model(folder)


def _print_hits(title: str, hits: list[rows.Hit]) -> None:
    rows = [
        [
            hit.path + ("" if Path(hit.path).exists() else " (missing)"),
            f"{hit.distance:.4f}",
            *map(_known, (hit.identity, hit.camera, hit.time)),
        ]
        for hit in hits
    ]
    print_table(title, ["image", "distance", "identity", "camera", "time"], rows)


def _known(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def dedupe(
    path: GalleryPath,
    distance: Annotated[float, typer.Option("--distance", help="The largest distance between two near-doubles.")] = 0.3,
    where: Where = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write all groups as a .csv; of each, all but one image could be removed.", metavar="FILE"),
    ] = None,
    sheet: Sheet = None,
) -> None:
    """Find groups of images that are almost the same.

    Example: csametric dedupe people.db --distance 0.2 --sheet doubles.png
    """
    with gallery.Gallery(path, create=False) as opened:
        groups = duplicates.find_duplicates(opened, distance, where)
    removable = sum(len(group) - 1 for group in groups)
    print(
        f"{len(groups):,} groups of near-doubles up to distance {distance:g}; removing {removable:,} images leaves one of each"
    )
    for number, group in enumerate(groups[:PRINTED_GROUPS], 1):
        print(f"{number}: {', '.join(hit.key for hit in group)}")
    if len(groups) > PRINTED_GROUPS:
        print(f"and {len(groups) - PRINTED_GROUPS:,} more{'' if out else '; --out writes them all'}")
    if out is not None:
        write_text(out, _groups_csv(groups))
    if sheet is not None and groups:
        _draw([[(hit.path, f"{hit.distance:.3f}") for hit in group[:COLUMNS]] for group in groups[:PRINTED_GROUPS]], sheet)


def _groups_csv(groups: list[list[rows.Hit]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["group", "keep", "path", "distance"])
    for number, group in enumerate(groups, 1):
        writer.writerows([number, "yes" if hit is group[0] else "no", hit.path, f"{hit.distance:.4f}"] for hit in group)
    return out.getvalue()


def _draw(rows: list[list[tuple[str, str]]], path: Path) -> None:
    """Draw rows of images with their captions; an image that cannot be read is grey."""
    columns = max(len(row) for row in rows)
    cells = [cell for row in rows for cell in row + [("", "")] * (columns - len(row))]
    pictures = [_picture(name) for name, _ in cells]
    figures.save_figure(figures.contact_sheet(pictures, [caption for _, caption in cells], columns), path)
    print(f"written: {path}")


def _picture(name: str) -> NDArray:
    if not name:
        return np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    try:
        return transforms.read_image(Path(name), HEIGHT, WIDTH)
    except UserError:
        return np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
