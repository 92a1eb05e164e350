"""Re-identification datasets by the word a command gives: KIND:PATH."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from csametric.data.cuhk03 import read_cuhk03
from csametric.data.dukemtmc import read_dukemtmc
from csametric.data.folder import read_folder, read_manifest
from csametric.data.market1501 import read_market1501
from csametric.data.msmt17 import read_msmt17
from csametric.data.records import ReidDataset
from csametric.errors import UserError

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
    """The folder that the paths of images are stored relative to, in scores."""
    place = Path(path).expanduser()
    return place.parent if kind == "csv" else place


def read_dataset(kind: str, path: str | Path) -> ReidDataset:
    """The dataset of a kind at a path.

    Raises:
        UserError: an unknown kind, or what the reader refuses.
    """
    if kind not in READERS:
        raise UserError(f"there is no dataset kind {kind!r}; use one of {', '.join(READERS)}")
    if not str(path):
        raise UserError(f"there is no dataset to train on; give --data KIND:PATH, of kind {', '.join(READERS)}")
    return READERS[kind](Path(path).expanduser())
