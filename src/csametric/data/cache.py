"""On-disk cache: folders that are built under a temporary name, renamed once complete, and found again by a key."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csametric.errors import UserError, explain_full_disk
from csametric.files import sync_folder, temporary_path

Progress = Callable[[int, int], None]  # called with (items done, items in total)


def cached_folder(name: str, write: Callable[[Path], None], cache: Path | None = None) -> Path:
    """Return a folder of the cache, building it first if it does not exist.

    Args:
        name: of the folder; it should end with a `cache_key`.
        write: called with an empty temporary folder to fill, which is then renamed; a failure leaves nothing behind.
        cache: the folder that holds all cached folders; by default $CSAMETRIC_CACHE or ~/.cache/csametric.

    Raises:
        UserError: the disk is full.
    """
    root = cache or Path(os.environ.get("CSAMETRIC_CACHE") or Path.home() / ".cache" / "csametric")
    folder = root / name
    if not folder.is_dir():
        with explain_full_disk(root, "free some space or set CSAMETRIC_CACHE to a folder on another disk"):
            _build(folder, write)
    return folder


def cache_key(settings: Sequence[Any], files: Sequence[Path]) -> str:
    """Hash settings and files to 16 hexadecimal digits that change when either does.

    Args:
        settings: values that can be written as JSON.
        files: existing files; their names, sizes and modification times enter the key.

    Examples:
        >>> cache_key([1, "area"], []) == cache_key([1, "cubic"], [])
        False
    """
    stamps = []
    for path in files:
        status = path.stat()
        stamps.append((path.name, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps([*settings, stamps]).encode()).hexdigest()[:16]


def map_cached(path: Path, shape: tuple[int, ...]) -> NDArray:
    """Memory-map a cached uint8 array, read-only.

    Raises:
        UserError: the file is missing or does not have the size of the array.
    """
    expected = math.prod(shape)
    size = path.stat().st_size if path.is_file() else 0
    if size != expected:
        raise UserError(f"{path} must have {expected:,} bytes, got {size:,}; remove the folder {path.parent} to rebuild it")
    return np.memmap(path, np.uint8, "r", shape=shape)


def _build(folder: Path, write: Callable[[Path], None]) -> None:
    with temporary_path(folder) as temporary:
        temporary.mkdir()
        write(temporary)
        sync_folder(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process may have finished the same folder first
                raise
        sync_folder(folder.parent)
