"""Put images into a gallery: which images, and the work that goes on where it was interrupted."""

import csv
import hashlib
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csametric.data.datasets import READERS, read_dataset, split_data
from csametric.data.listing import SUFFIXES, describe_skipped, list_images
from csametric.data.loading import in_batches, prefetch
from csametric.data.transforms import read_image
from csametric.errors import UserError, wrong_path
from csametric.inference.images import EMBED_BATCH, ImageEmbedder
from csametric.progress import show_progress
from csametric.search.gallery import Gallery

BATCHES_PER_WRITE = 8  # so many batches are lost at most if the work is killed
COLUMNS = ("path", "identity", "camera", "time")
SPLITS = ("query", "gallery", "train", "all")


class IndexedImage(NamedTuple):
    """An image file and what is known about it."""

    path: Path
    identity: int | None = None
    camera: int | None = None
    time: float | None = None  # seconds


class FoundImages(NamedTuple):
    """The images of a source."""

    images: list[IndexedImage]
    notes: list[str]  # what was left out, one sentence each


class Indexed(NamedTuple):
    """What was done."""

    added: int
    present: int  # images that were in the gallery already
    problems: list[str]  # why the others could not be read, one sentence per file
    per_second: float  # images embedded; 0 if none was


def find_images(source: str, split: str = "gallery") -> FoundImages:
    """Find the images to put into a gallery.

    Args:
        source: a folder, whose images lack identity and camera; a .csv with the columns path and optionally identity, camera
            and time, paths relative to it; or a dataset, KIND:PATH.
        split: of a dataset: "query", "gallery", "train" or "all"; junk is left out.

    Raises:
        UserError: the source cannot be read or holds no images.
    """
    kind = source.split(":", 1)[0]
    if kind in READERS and ":" in source:
        return _images_of_dataset(*split_data(source, READERS), split)
    path = Path(source).expanduser()
    if path.suffix.lower() == ".csv":
        return FoundImages(read_table(path), [])
    if not path.is_dir():
        raise UserError(f"{wrong_path('folder', path)}; name a folder of images, a .csv, or a dataset as KIND:PATH")
    listing = list_images(path)
    if not listing.images:
        raise UserError(f"{path} contains no images ({', '.join(sorted(SUFFIXES))}); name another folder")
    return FoundImages([IndexedImage(image) for image in listing.images], describe_skipped([listing]))


def _images_of_dataset(kind: str, path: str, split: str) -> FoundImages:
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; use one of {', '.join(SPLITS)}")
    dataset = read_dataset(kind, path)
    names = SPLITS[:-1] if split == "all" else (split,)
    records = [record for name in names for record in getattr(dataset, name) if record.identity >= 0]
    if not records:
        raise UserError(f"{path} lacks {split} images; choose another split ({', '.join(SPLITS)})")
    return FoundImages([IndexedImage(*record) for record in records], list(dataset.notes))


def read_table(path: Path) -> list[IndexedImage]:
    """Read a .csv with the columns path and optionally identity, camera and time.

    Raises:
        UserError: the file or a column is missing, or a value is not a number.
    """
    if not path.is_file():
        raise UserError(f"{wrong_path('file', path)}; write one with the column path and optionally {', '.join(COLUMNS[1:])}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a table in UTF-8 ({error}); save it as CSV") from error
    if not rows or "path" not in rows[0]:
        raise UserError(f"{path} needs a first line with the column path and one line per image")
    return [_image_of_row(path, number, row) for number, row in enumerate(rows, 2)]


def _image_of_row(table: Path, line: int, row: dict[str, str]) -> IndexedImage:
    if not row["path"]:
        raise UserError(f"{table} names no path in line {line}; add it")
    try:
        identity, camera = (int(row[name]) if row.get(name) else None for name in ("identity", "camera"))
        seconds = float(row["time"]) if row.get("time") else None
    except ValueError as error:
        raise UserError(f"line {line} of {table} has a value that is not a number ({error}); correct it") from error
    return IndexedImage(table.parent / row["path"], identity, camera, seconds)


class _Read(NamedTuple):
    """An image file that was read."""

    digest: str  # SHA-256 of the file; "" if it cannot be read
    pixels: NDArray | None  # None if it is in the gallery already, or cannot be read
    problem: str  # why it cannot be read


def index_images(gallery: Gallery, model: ImageEmbedder, images: Sequence[IndexedImage]) -> Indexed:
    """Embed image files and add them to a gallery, without those that it holds already with the same content.

    Args:
        gallery: of this model.
        model: as returned by `load`.
        images: relative paths are stored as absolute ones.

    Raises:
        UserError: the gallery holds features of another model.
    """
    gallery.check_model(model)
    dimensions = None if gallery.dimensions == model.model.dimensions else gallery.dimensions
    images = [image._replace(path=image.path.absolute()) for image in images]
    started, added, present, problems = time.perf_counter(), 0, 0, []
    for group in _in_groups(_read_batches(gallery, model, images), BATCHES_PER_WRITE):
        pairs = [pair for batch in group for pair in batch]
        new = [(image, read) for image, read in pairs if read.pixels is not None]
        problems += [read.problem for _, read in pairs if read.problem]
        present += sum(read.pixels is None and not read.problem for _, read in pairs)
        if not new:
            continue
        pixels = (np.stack([read.pixels for _, read in batch]) for batch in in_batches(new, EMBED_BATCH))
        gallery.add_features(
            np.concatenate([model.embed(batch, dimensions=dimensions).numpy() for batch in pixels]),
            [str(image.path) for image, _ in new],
            [image.identity for image, _ in new],
            [image.camera for image, _ in new],
            [image.time for image, _ in new],
            digests=[read.digest for _, read in new],
        )
        added += len(new)
    return Indexed(added, present, problems, added / (time.perf_counter() - started))


def _read_batches(
    gallery: Gallery, model: ImageEmbedder, images: Sequence[IndexedImage]
) -> Iterator[list[tuple[IndexedImage, _Read]]]:
    """Read the images in threads, and show the progress."""
    height, width = model.experiment.data.height, model.experiment.data.width

    def read(known: tuple[list[IndexedImage], dict[str, str]]) -> list[tuple[IndexedImage, _Read]]:
        batch, digests = known
        return [(image, _read(image.path, digests.get(str(image.path)), height, width)) for image in batch]

    batches = in_batches(images, EMBED_BATCH)
    known = ((batch, gallery.digests([str(image.path) for image in batch])) for batch in batches)
    yield from show_progress(prefetch(read, known), "indexing", len(batches), enabled=True)


def _read(path: Path, known_digest: str | None, height: int, width: int) -> _Read:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return _Read(digest, None if digest == known_digest else read_image(path, height, width), "")
    except UserError as error:
        return _Read("", None, str(error))
    except OSError as error:
        return _Read("", None, f"{path} cannot be read ({error.strerror})")


def _in_groups(batches: Iterator[list], size: int) -> Iterator[list[list]]:
    while group := list(islice(batches, size)):
        yield group
