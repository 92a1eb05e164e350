"""Kinds of data as commands name them, KIND:PATH, and the readers of re-identification datasets by kind."""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from csametric.data.cuhk03 import read_cuhk03
from csametric.data.dukemtmc import read_dukemtmc
from csametric.data.folder import read_folder, read_manifest
from csametric.data.market1501 import read_market1501
from csametric.data.msmt17 import read_msmt17
from csametric.data.records import ReidDataset
from csametric.errors import NoDatasetError, UserError, suggestion

READERS: dict[str, Callable[[Path], ReidDataset]] = {
    "folder": read_folder,
    "csv": read_manifest,
    "market1501": read_market1501,
    "dukemtmc": read_dukemtmc,
    "cuhk03-detected": partial(read_cuhk03, boxes="detected"),
    "cuhk03-labeled": partial(read_cuhk03, boxes="labeled"),
    "msmt17": read_msmt17,
}
DESCRIPTOR_KINDS = ("photos", "brown", "hpatches", "sequences", "pairs")
_FILES = ("csv", "pairs")  # kinds whose path is a file


def split_data(data: str, kinds: Collection[str]) -> tuple[str, str]:
    """Split "KIND:PATH" into the kind and the absolute path.

    Args:
        data: for example "folder:people".
        kinds: that can be used, of `READERS` and `DESCRIPTOR_KINDS`.

    Raises:
        UserError: the kind is none of `kinds`, or it or the path is missing.

    Examples:
        >>> split_data("market1501:/data/market", READERS)
        ('market1501', '/data/market')
    """
    kind, separator, path = data.partition(":")
    if separator and path and kind in kinds:
        return kind, str(Path(path).expanduser().resolve())
    forms = ", ".join(f"{known}:{'FILE' if known in _FILES else 'FOLDER'}" for known in kinds)
    if separator and kind in (*READERS, *DESCRIPTOR_KINDS):
        raise UserError(f"{data!r} cannot be used here; write one of {forms}")
    if separator:
        raise UserError(f"unknown kind of data in {data!r}; {suggestion(kind, kinds)}write one of {forms}")
    example = next((known for known in kinds if (known in _FILES) == Path(data).is_file()), next(iter(kinds)))
    raise UserError(f"{data!r} does not say what kind of data it is; write for example {example}:{data}, or one of {forms}")


def dataset_root(kind: str, path: str | Path) -> Path:
    """Return the folder to which stored image paths are relative.

    Args:
        kind: a key of `READERS`.
        path: of the dataset; `~` is expanded.

    Examples:
        >>> dataset_root("folder", "data/people").as_posix(), dataset_root("csv", "data/people.csv").as_posix()
        ('data/people', 'data')
    """
    expanded = Path(path).expanduser()
    return expanded.parent if kind == "csv" else expanded


def read_dataset(kind: str, path: str | Path, camera_pattern: str = "") -> ReidDataset:
    """Read a dataset.

    Args:
        kind: a key of `READERS`.
        path: the folder of the dataset, or its CSV file; `~` is expanded.
        camera_pattern: for "folder", as in `read_folder`; the other kinds say themselves where the camera is.

    Raises:
        UserError: the kind is unknown, the path is empty, or the dataset cannot be read.
    """
    kinds = ", ".join(READERS)
    if kind not in READERS:
        raise UserError(f"unknown dataset kind {kind!r}; {suggestion(kind, READERS)}use one of {kinds}")
    if not str(path):
        raise NoDatasetError(f"no dataset given; name a kind ({kinds}) and a path")
    if kind == "folder":
        return read_folder(Path(path).expanduser(), camera_pattern)
    return READERS[kind](Path(path).expanduser())
