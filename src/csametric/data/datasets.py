"""Readers of re-identification datasets by kind, as commands name them: KIND:PATH."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from csametric.data.cuhk03 import read_cuhk03
from csametric.data.dukemtmc import read_dukemtmc
from csametric.data.folder import read_folder, read_manifest
from csametric.data.market1501 import read_market1501
from csametric.data.msmt17 import read_msmt17
from csametric.data.records import ReidDataset
from csametric.errors import NoDatasetError, UserError

READERS: dict[str, Callable[[Path], ReidDataset]] = {
    "market1501": read_market1501,
    "dukemtmc": read_dukemtmc,
    "cuhk03-detected": partial(read_cuhk03, boxes="detected"),
    "cuhk03-labeled": partial(read_cuhk03, boxes="labeled"),
    "msmt17": read_msmt17,
    "folder": read_folder,
    "csv": read_manifest,
}


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
        raise UserError(f"unknown dataset kind {kind!r}; use one of {kinds}")
    if not str(path):
        raise NoDatasetError(f"no dataset given; name a kind ({kinds}) and a path")
    if kind == "folder":
        return read_folder(Path(path).expanduser(), camera_pattern)
    return READERS[kind](Path(path).expanduser())
