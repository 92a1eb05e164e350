"""Folders of the cache: made aside, renamed when whole, found again by a key."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csametric.errors import UserError, explaining_full_disk
from csametric.files import aside, sync_folder

Progress = Callable[[int, int], None]  # called with (items done, items in all)


def cached_folder(name: str, write: Callable[[Path], None], cache: Path | None = None) -> Path:
    """The folder `name` of the cache; where it is not there, `write` fills one aside, which is then renamed to it.

    Args:
        cache: the cache's own folder; by default $CSAMETRIC_CACHE or ~/.cache/csametric.

    Raises:
        UserError: the disk is full.
    """
    root = cache or Path(os.environ.get("CSAMETRIC_CACHE") or Path.home() / ".cache" / "csametric")
    folder = root / name
    if not folder.is_dir():
        with explaining_full_disk(root, "free some room or set CSAMETRIC_CACHE to another folder"):
            _build(folder, write)
    return folder


def cache_key(settings: Sequence[Any], files: Sequence[Path]) -> str:
    """What a folder's name ends with: another one where the settings (ready for JSON) or the files have changed."""
    stamps = [(path.name, status.st_size, status.st_mtime_ns) for path in files if (status := path.stat())]
    return hashlib.sha256(json.dumps([*settings, stamps]).encode()).hexdigest()[:16]


def map_cached(path: Path, shape: tuple[int, ...]) -> NDArray:
    """Memory-map a uint8 array that `cached_folder` has stored.

    Raises:
        UserError: the file is missing or has another size.
    """
    size = path.stat().st_size if path.is_file() else 0
    if size != math.prod(shape):
        raise UserError(
            f"{path} has {size:,} bytes instead of {math.prod(shape):,}; remove the folder {path.parent} and it is built again"
        )
    return np.memmap(path, np.uint8, "r", shape=shape)


def _build(folder: Path, write: Callable[[Path], None]) -> None:
    with aside(folder) as new:
        new.mkdir()
        write(new)
        sync_folder(new)
        try:
            new.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process may have finished the same folder first
                raise
        sync_folder(folder.parent)
