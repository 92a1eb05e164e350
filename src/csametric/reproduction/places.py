"""Where the datasets of the paper lie under one folder, and what to get where one is missing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from csametric.data.brown import SUBSETS
from csametric.data.datasets import read_dataset
from csametric.data.hpatches import find_sequences, splits
from csametric.errors import UserError
from csametric.reproduction.paper import CUHK03, DUKE, LIBERTY, MARKET, NOTREDAME, YOSEMITE

HPATCHES = "hpatches"


class MissingDataError(UserError):
    """A dataset is not there, or not whole; the message names what to get."""


@dataclass(frozen=True)
class Place:
    """Names that the folder may have, whatever their case; what to unpack there; what must be readable in it."""

    names: tuple[str, ...]
    get: str
    check: Callable[[Path], object]


def _check_brown(train: str) -> Callable[[Path], object]:
    def check(folder: Path) -> None:
        wanted = [train, *(name for name in SUBSETS if name != train)]
        missing = [name for name in wanted if not (folder / name / "info.txt").is_file()]
        if missing:
            raise UserError(f"{folder} lacks {', '.join(missing)}; unpack them there")

    return check


def _check_hpatches(folder: Path) -> None:
    present = set(find_sequences(folder))
    missing = [name for name in splits()["full"] if name not in present]
    if missing:
        raise UserError(f"{folder} lacks {len(missing)} of the 116 sequences ({missing[0]}); unpack the release again")


BROWN_NAMES = ("brown", "phototour", "ubc", "ubc-phototour")
BROWN_GET = "liberty.zip, notredame.zip and yosemite.zip, unpacked in a folder brown"
DATA = {
    MARKET: Place(
        ("market-1501", "market1501", "market-1501-v15.09.15"),
        "Market-1501-v15.09.15.zip",
        lambda folder: read_dataset(MARKET, folder),
    ),
    DUKE: Place(
        ("dukemtmc-reid", "dukemtmc", "dukemtmcreid"),
        "DukeMTMC-reID.zip (withdrawn by its authors; for those who hold it)",
        lambda folder: read_dataset(DUKE, folder),
    ),
    CUHK03: Place(
        ("cuhk03-np", "cuhk03np", "cuhk03"),
        "CUHK03-NP: its folder detected, or images_detected with cuhk03_new_protocol_config_detected.mat",
        lambda folder: read_dataset(CUHK03, folder),
    ),
    LIBERTY: Place(BROWN_NAMES, BROWN_GET, _check_brown("liberty")),
    NOTREDAME: Place(BROWN_NAMES, BROWN_GET, _check_brown("notredame")),
    YOSEMITE: Place(BROWN_NAMES, BROWN_GET, _check_brown("yosemite")),
    HPATCHES: Place(
        ("hpatches-release", "hpatches", "hpatches-benchmark"),
        "hpatches-release.tar.gz, with the benchmark's folder tasks in it",
        _check_hpatches,
    ),
}


def find_place(root: Path, data: str) -> Path:
    """The folder of a dataset under ROOT.

    Raises:
        MissingDataError: it is not there, or something in it is missing.
    """
    place = DATA[data]
    entries = sorted(path for path in root.iterdir() if path.is_dir())
    by_name = {path.name.lower(): path for path in reversed(entries)}
    found = next((by_name[name] for name in place.names if name in by_name), None)
    if found is None:
        raise MissingDataError(f"{root} has no folder {place.names[0]}; get {place.get}")
    try:
        place.check(found)
    except UserError as error:
        raise MissingDataError(str(error)) from error
    return found.resolve()
