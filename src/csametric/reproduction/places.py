"""Where the paper's datasets lie under one folder, and what to download where one is missing."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from csametric.data.brown import SUBSETS
from csametric.data.datasets import read_dataset
from csametric.data.hpatches import find_sequences, read_splits
from csametric.errors import UserError, wrong_path
from csametric.reproduction.paper import CUHK03, DUKE, LIBERTY, MARKET, NOTREDAME, YOSEMITE

HPATCHES = "hpatches"
INSIDE_A_DATASET = ("bounding_box_train", "detected", "liberty", "i_ajuntament")  # folders that datasets consist of


class MissingDataError(UserError):
    """A dataset is missing or incomplete; the message says what to get."""


@dataclass(frozen=True)
class Place:
    """How a dataset is found under the folder of all datasets, and checked."""

    names: tuple[str, ...]  # that its folder may have, in upper or lower case; the first is the usual one
    get: str  # what to download and unpack
    check: Callable[[Path], object]  # raises `UserError` if the folder lacks something


def _check_brown(folder: Path, train: str) -> None:
    needed = [train, *(name for name in SUBSETS if name != train)]
    lacking = [name for name in needed if not (folder / name / "info.txt").is_file()]
    if lacking:
        raise UserError(f"{folder} lacks {', '.join(lacking)}; unpack them there")


def _check_hpatches(folder: Path) -> None:
    present = set(find_sequences(folder))
    lacking = [name for name in read_splits()["full"] if name not in present]
    if lacking:
        raise UserError(
            f"{folder} lacks {len(lacking)} of the 116 sequences, for example {lacking[0]}; unpack the release again"
        )


BROWN_NAMES = ("brown", "phototour", "ubc", "ubc-phototour")
BROWN_GET = "liberty.zip, notredame.zip and yosemite.zip, unpacked in a folder brown"
DATA = {
    MARKET: Place(
        ("Market-1501-v15.09.15", "Market-1501", "Market1501"),
        "Market-1501-v15.09.15.zip",
        partial(read_dataset, MARKET),
    ),
    DUKE: Place(
        ("DukeMTMC-reID", "DukeMTMC", "DukeMTMCreID"),
        "DukeMTMC-reID.zip (withdrawn by its authors: only if you have a copy)",
        partial(read_dataset, DUKE),
    ),
    CUHK03: Place(
        ("CUHK03-NP", "CUHK03NP", "CUHK03"),
        "CUHK03-NP: its folder detected, or images_detected with cuhk03_new_protocol_config_detected.mat",
        partial(read_dataset, CUHK03),
    ),
    LIBERTY: Place(BROWN_NAMES, BROWN_GET, partial(_check_brown, train="liberty")),
    NOTREDAME: Place(BROWN_NAMES, BROWN_GET, partial(_check_brown, train="notredame")),
    YOSEMITE: Place(BROWN_NAMES, BROWN_GET, partial(_check_brown, train="yosemite")),
    HPATCHES: Place(
        ("hpatches-release", "hpatches", "hpatches-benchmark"),
        "hpatches-release.tar.gz, with the benchmark's folder tasks in it",
        _check_hpatches,
    ),
}


def check_root(root: Path) -> None:
    """Check that a folder can hold datasets.

    Raises:
        UserError: it does not exist, or is itself a dataset.
    """
    if not root.is_dir():
        raise UserError(f"{wrong_path('folder', root)}; name the folder that holds the datasets")
    if any((root / name).exists() for name in INSIDE_A_DATASET):
        raise UserError(f"{root} is a dataset; name the folder above it, {root.resolve().parent}")


def find_place(root: Path, data: str) -> Path:
    """The folder of a dataset.

    Args:
        root: the folder that holds all datasets.
        data: a key of `DATA`.

    Raises:
        MissingDataError: the dataset is missing or incomplete.
    """
    place = DATA[data]
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    by_name = {path.name.lower(): path for path in reversed(folders)}  # the first folder wins where names differ in case
    folder = next((by_name[name.lower()] for name in place.names if name.lower() in by_name), None)
    if folder is None:
        raise MissingDataError(f"{root / place.names[0]} is missing; get {place.get}")
    try:
        place.check(folder)
    except UserError as error:
        raise MissingDataError(str(error)) from error
    return folder.resolve()
