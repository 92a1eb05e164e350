"""Folders of the cache: made aside, renamed when whole, found again by a key."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from csametric.errors import explaining_full_disk

STALE_AFTER = 3600.0  # seconds

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
            _make(folder, write)
    return folder


def cache_key(settings: Sequence[Any], files: Sequence[Path]) -> str:
    """What a folder's name ends with: another one where the settings (ready for JSON) or the files have changed."""
    stamps = [(path.name, status.st_size, status.st_mtime_ns) for path in files if (status := path.stat())]
    return hashlib.sha256(json.dumps([*settings, stamps]).encode()).hexdigest()[:16]


def sync(out: IO[Any]) -> None:
    """Have what was written to a file on the disk."""
    out.flush()
    os.fsync(out.fileno())


def _make(folder: Path, write: Callable[[Path], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left_by_a_kill in folder.parent.glob(f".{folder.name}-*"):
        if time.time() - left_by_a_kill.stat().st_mtime > STALE_AFTER:
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write(aside)
        try:
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process may have finished the same folder first
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
