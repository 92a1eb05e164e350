"""Labelled images of one's own: a CSV manifest, or a folder with one folder for each identity."""

import csv
import re
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from csametric.data.listing import list_folders, list_images
from csametric.data.records import Record, ReidDataset
from csametric.errors import UserError

COLUMNS = ("path", "id", "camera", "split")
SPLITS = ("train", "query", "gallery")
NO_IDENTITIES = {"train", "training", "val", "valid", "validation", "test", "testing", "query", "gallery"}
_CAMERA = re.compile(r"(?:^|_)c(?:am)?(\d+)", re.IGNORECASE)


def read_manifest(path: Path) -> ReidDataset:
    """A CSV file with the columns path (relative to the file), id, camera (a number) and split (train, query, gallery).

    Without images to train on it can be evaluated.

    Identities are numbered from 1 in the order of their sorted names.

    Raises:
        UserError: the file or a column is missing, a line cannot be read, an image is not there, or a split is empty.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; write one with the columns {', '.join(COLUMNS)}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = [{name: value or "" for name, value in row.items() if name} for row in csv.DictReader(lines)]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    if not rows or not set(COLUMNS) <= set(rows[0]):
        raise UserError(f"{path} needs a first line with the columns {', '.join(COLUMNS)} and a line for each image")
    entries = [_entry(path, number, row) for number, row in enumerate(rows, 2)]
    return _dataset(path.stem, entries)


def read_folder(root: Path) -> ReidDataset:
    """A folder with a folder for each identity; or with query, gallery and, to train on, train, each with a folder for each.

    Cameras are read from file names with c1 or cam1 at their start or after an underscore, else there is one camera, 0.
    Without train, query and gallery, every second identity (of the sorted names, from the first) is for training; of the
    others, the first image of each camera that has several is a query and the rest is the gallery.

    Raises:
        UserError: no such folder, no folders with images in it, or too few of them.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; name one that holds a folder of images for each identity")
    if all((root / split).is_dir() for split in SPLITS[1:]):
        present = [split for split in SPLITS if (root / split).is_dir()]
        return _dataset(root.name, [entry for split in present for entry in _identities(root / split, split)])
    entries = _identities(root, "")
    for path, name, _, _ in entries:
        if name.lower() in NO_IDENTITIES:
            raise UserError(
                f"{path.parent} lies in {root / name}, a split and no identity; name the splits query, gallery and train, "
                "each with a folder for each identity"
            )
    names = sorted({name for _, name, _, _ in entries})
    if len(names) < 4:
        raise UserError(f"{root} has {len(names)} folders with images; four identities are the least, two to train on")
    return _dataset(root.name, _split(entries, set(names[::2])))


Entry = tuple[Path, str, int, str]  # path, identity, camera, split


def _split(entries: Sequence[Entry], to_train: set[str]) -> list[Entry]:
    """Entries come identity by identity."""
    queries = {path for _, same in groupby(entries, itemgetter(1)) for path in _queries(list(same))}
    return [
        (path, name, camera, "train" if name in to_train else "query" if path in queries else "gallery")
        for path, name, camera, _ in entries
    ]


def _queries(of_identity: Sequence[Entry]) -> list[Path]:
    """The first image of each camera with more than one; where there is no such camera, the first of several images."""
    by_camera: dict[int, list[Path]] = {}
    for path, _, camera, _ in of_identity:
        by_camera.setdefault(camera, []).append(path)
    first = [paths[0] for paths in by_camera.values() if len(paths) > 1]
    return first or ([of_identity[0][0]] if len(of_identity) > 1 else [])


def _identities(root: Path, split: str) -> list[Entry]:
    entries = []
    for folder in list_folders(root):
        for path in list_images(folder).images:
            camera = _CAMERA.search(path.stem)
            entries.append((path, folder.name, int(camera[1]) if camera else 0, split))
    return entries


def _entry(manifest: Path, number: int, row: dict[str, str]) -> Entry:
    if row["split"] not in SPLITS:
        raise UserError(f"{manifest} line {number}: the split is {row['split']!r}; use one of {', '.join(SPLITS)}")
    if not row["camera"].isdecimal():
        raise UserError(
            f"{manifest} line {number}: the camera is {row['camera']!r}; use a whole number, 0 if there is one camera"
        )
    image = manifest.parent / row["path"]
    if not row["id"]:
        raise UserError(f"{manifest} line {number}: the id is missing; name whom the image shows")
    if not image.is_file():
        raise UserError(f"{manifest} line {number}: there is no image {image}; correct the path")
    return image, row["id"], int(row["camera"]), row["split"]


def _dataset(name: str, entries: Sequence[Entry]) -> ReidDataset:
    names = sorted({identity for _, identity, _, _ in entries})
    numbers = {identity: number for number, identity in enumerate(names, 1)}
    splits = {
        split: sorted(Record(path, numbers[identity], camera) for path, identity, camera, own in entries if own == split)
        for split in SPLITS
    }
    empty = [split for split in SPLITS[1:] if not splits[split]]
    if empty:
        raise UserError(
            f"{name} has no images for {' and '.join(empty)}; an identity needs two images or more to be found by another"
        )
    return ReidDataset(name=name, names=names, train=splits["train"], query=splits["query"], gallery=splits["gallery"])
