"""Your own labelled images: a CSV manifest, or a folder with one folder per identity."""

import csv
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from csametric.data.listing import Listing, describe_skipped, list_folders, list_images
from csametric.data.records import Record, ReidDataset
from csametric.errors import UserError, wrong_path
from csametric.files import is_file

COLUMNS = ("path", "id", "camera", "split")
CAMERA_DIGITS = 9  # more are a mistake
SPLITS = ("train", "query", "gallery")
NO_IDENTITIES = {"train", "training", "val", "valid", "validation", "test", "testing", "query", "gallery"}
CAMERA_PATTERN = r"(?:^|[_\-. ])(?:c|cam(?:era)?[_\- ]?)(\d+)|^\d+c(\d+)t\d+"  # c1, cam1, camera_1, cam-1; MARS: 0001C1T0001
_CAMERA_LIKE = re.compile(r"cam|(?<![a-z0-9])c\d|^\d{3,}c\d", re.IGNORECASE)

Entry = tuple[Path, str, int, str]  # path, name of the identity, camera, split
UncheckedEntry = tuple[Path, str, int | None, str]  # camera None if it was not found
FindCamera = Callable[[Path], int | None]


def read_manifest(path: Path) -> ReidDataset:
    """Read a dataset from a CSV file with the columns path, id, camera and split.

    Identities are numbered from 1 in alphabetical order of their ids. Without training images the dataset can only be
    evaluated.

    Args:
        path: a UTF-8 file with one line per image: path (relative to the file), id (any text), camera (a number) and
            split (train, query or gallery).

    Raises:
        UserError: the file or a column is missing, a line is invalid, an image does not exist, or query or gallery is empty.
    """
    columns = ", ".join(COLUMNS)
    if not path.is_file():
        raise UserError(f"{wrong_path('file', path)}; write one with the columns {columns}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = [{name: value or "" for name, value in row.items() if name} for row in csv.DictReader(lines)]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{path} is not CSV ({error}); check its quotes") from error
    if not rows or not set(COLUMNS) <= set(rows[0]):
        raise UserError(f"{path} needs a first line with the columns {columns} and one line per image")
    return _dataset(path.stem, [_entry(path, number, row) for number, row in enumerate(rows, 2)])


def read_folder(root: Path, camera_pattern: str = "") -> ReidDataset:
    """Read a dataset from a folder with one folder of images per identity.

    Cameras are read from file names with c1, cam1, camera1, camera_1 or cam-1 at their start or after a separator, or as
    MARS names them (0001C1T0001F001). If no name has one, the camera is 0; a note says so if names look as if they had.
    If the folder holds query and gallery (and train, to train on), each with one folder per identity, these are the splits.
    Otherwise every second identity, from the first in alphabetical order, is for training; of the others, the first image of
    each camera with several images is a query, and the remaining images are the gallery.

    Args:
        root: the folder.
        camera_pattern: a regular expression that is searched in each image's path below the folder of its identity; its
            first group that matches is the number of the camera. By default `CAMERA_PATTERN`, in the file name.

    Raises:
        UserError: the folder does not exist, has fewer than four identities with images, or query or gallery is empty; or
            the camera can be read from some names and not from others.
    """
    if not root.is_dir():
        raise UserError(f"{wrong_path('folder', root)}; give one that holds a folder of images for each identity")
    find_camera = _camera_finder(camera_pattern)
    if all((root / split).is_dir() for split in SPLITS[1:]):
        present = [split for split in SPLITS if (root / split).is_dir()]
        read = [_identities(root / split, split, find_camera) for split in present]
        notes = describe_skipped([listing for _, listings in read for listing in listings])
        return _dataset(root.name, *_check_cameras([entry for entries, _ in read for entry in entries], notes))
    unchecked, listings = _identities(root, "", find_camera)
    entries, notes = _check_cameras(unchecked, describe_skipped(listings))
    for path, name, _, _ in entries:
        if name.lower() in NO_IDENTITIES:
            raise UserError(
                f"{path.parent} lies in {root / name}, which is named like a split, not an identity; "
                "name the splits query, gallery and train, each with a folder for each identity"
            )
    names = sorted({name for _, name, _, _ in entries})
    if len(names) < 4:
        raise UserError(f"{root} needs at least 4 folders with images, 2 of them to train on, got {len(names)}; add some")
    return _dataset(root.name, _assign_splits(entries, set(names[::2])), notes)


def _assign_splits(entries: Sequence[Entry], train_names: set[str]) -> list[Entry]:
    """Assign a split to each entry; the entries of an identity must be adjacent."""
    queries = {path for _, group in groupby(entries, itemgetter(1)) for path in _queries(list(group))}
    assigned = []
    for path, name, camera, _ in entries:
        if name in train_names:
            split = "train"
        elif path in queries:
            split = "query"
        else:
            split = "gallery"
        assigned.append((path, name, camera, split))
    return assigned


def _queries(entries: Sequence[Entry]) -> list[Path]:
    """Choose the queries of one identity.

    These are the first image of each camera with several images or, if every camera has one image, the first of them all.
    An identity with a single image has no query.
    """
    paths_by_camera: dict[int, list[Path]] = {}
    for path, _, camera, _ in entries:
        paths_by_camera.setdefault(camera, []).append(path)
    queries = [paths[0] for paths in paths_by_camera.values() if len(paths) > 1]
    if not queries and len(entries) > 1:
        queries = [entries[0][0]]
    return queries


def _identities(root: Path, split: str, find_camera: FindCamera) -> tuple[list[UncheckedEntry], list[Listing]]:
    folders = list_folders(root)
    listings = [list_images(folder) for folder in folders]
    entries = [
        (path, folder.name, find_camera(path.relative_to(folder)), split)
        for folder, listing in zip(folders, listings, strict=True)
        for path in listing.images
    ]
    return entries, listings


def _camera_finder(pattern: str) -> FindCamera:
    """A function from an image's path below the folder of its identity to its camera; None where none is found."""
    try:
        compiled = re.compile(pattern or CAMERA_PATTERN, re.IGNORECASE)
    except re.error as error:
        raise UserError(f"data.camera_pattern {pattern!r} is not a regular expression ({error}); correct it") from error
    if not compiled.groups:
        raise UserError(f"data.camera_pattern {pattern!r} needs a group for the number of the camera, for example cam(\\d+)")

    def find(path: Path) -> int | None:
        match = compiled.search(path.as_posix() if pattern else path.stem)
        number = next((group for group in match.groups() if group), None) if match else None
        if number is not None and (not number.isdecimal() or len(number) > CAMERA_DIGITS):
            raise UserError(f"camera {number!r} in {path} is not a whole number of at most {CAMERA_DIGITS} digits; rename it")
        return None if number is None else int(number)

    return find


def _check_cameras(entries: Sequence[UncheckedEntry], notes: list[str]) -> tuple[list[Entry], list[str]]:
    """Entries with their cameras, 0 if no name has one, and the notes with one about cameras that were not understood.

    Raises:
        UserError: some names have a camera and others have not; camera 0 would pass for another camera than theirs.
    """
    without = [path for path, _, camera, _ in entries if camera is None]
    if without and len(without) < len(entries):
        raise UserError(
            f"{len(entries) - len(without):,} of {len(entries):,} image names have a camera, but {without[0]} has not; rename "
            "it, for example to cam1_..., or set data.camera_pattern"
        )
    camera_like = [path for path in without if _CAMERA_LIKE.search(path.name)]
    if camera_like:
        notes = [*notes, f"CAMERAS NOT READ from names such as {camera_like[0].name}; set data.camera_pattern if they name one"]
    return [(path, name, camera or 0, split) for path, name, camera, split in entries], notes


def _entry(manifest: Path, number: int, row: dict[str, str]) -> Entry:
    where = f"{manifest} line {number}"
    if row["split"] not in SPLITS:
        raise UserError(f"{where}: the split is {row['split']!r}; use one of {', '.join(SPLITS)}")
    if not row["camera"].isdecimal() or len(row["camera"]) > CAMERA_DIGITS:
        raise UserError(f"{where}: the camera is {row['camera']!r}; use a whole number, 0 if there is only one camera")
    if not row["id"]:
        raise UserError(f"{where}: the id is missing; write the name or number of the person in the image")
    image = manifest.parent / row["path"]
    if not is_file(image):
        raise UserError(f"{where}: {wrong_path('image', image)}; correct the path")
    return image, row["id"], int(row["camera"]), row["split"]


def _dataset(name: str, entries: Sequence[Entry], notes: Sequence[str] = ()) -> ReidDataset:
    names = sorted({identity for _, identity, _, _ in entries})
    numbers = {identity: number for number, identity in enumerate(names, 1)}
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for path, identity, camera, split in entries:
        splits[split].append(Record(path, numbers[identity], camera))
    empty = [split for split in ("query", "gallery") if not splits[split]]
    if empty:
        raise UserError(f"{name} has no images for {' and '.join(empty)}; give each identity to be found at least 2 images")
    return ReidDataset(
        name=name,
        names=names,
        notes=notes,
        train=sorted(splits["train"]),
        query=sorted(splits["query"]),
        gallery=sorted(splits["gallery"]),
    )
