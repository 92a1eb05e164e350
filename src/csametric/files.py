"""Files and folders on disk: atomic writes, folders replaced as a whole, locks between processes.

A killed process leaves at most one hidden folder, `.csametric-*.part`. Its lock ends with the process, so the next process
that writes to the same parent folder recognises it as abandoned and removes it.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from csametric.errors import BusyError, UserError

_ASIDE = ".csametric-*.part"
_cleaned: set[Path] = set()  # folders in which this process has already removed the leftovers of killed processes


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write to a temporary file, fsync it, and rename it to `path`.

    Readers see either the old file or the new one, never part of it, even after a kill. If two processes write the same
    file, the last one to finish wins.

    Args:
        path: the file to write; its folder is created if missing.
        write: writes the content to the binary file it is given.
    """
    with temporary_path(path) as part:
        with part.open("xb") as out:
            write(out)
            sync_file(out)
        part.replace(path)
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write text to a file atomically, encoded as UTF-8."""
    write_atomically(path, lambda out: out.write(text.encode()))


def read_text(path: Path) -> str:
    """The content of a UTF-8 text file, with or without a byte order mark.

    Raises:
        UserError: the file is not UTF-8.
    """
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error


def is_file(path: Path) -> bool:
    """Whether a path names a file; false too for text that cannot be a path, which `Path.is_file` raises for.

    Examples:
        >>> is_file(Path("x" * 5000))  # longer than the name of a file can be
        False
    """
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def copy_atomically(source: Path, target: Path) -> None:
    """Copy the content of a file atomically."""
    with source.open("rb") as content:
        write_atomically(target, lambda out: shutil.copyfileobj(content, out))


@contextmanager
def temporary_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path on the file system of `path`, for the caller to rename to `path` when the content is complete.

    No other process uses the temporary path. If it still exists when the block ends, it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    folder = path.parent / f".csametric-{secrets.token_hex(8)}.new"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # locked before it gets the name by which others look for abandoned folders
        folder = folder.rename(folder.with_suffix(".part"))
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` when the block ends; if the block fails, nothing changes.

    Other processes that replace a folder in the same parent wait in the meantime. A kill between the two renames leaves the
    old folder under the name `.NAME.old`; the next call restores it.
    """
    with lock_folder(folder.parent, wait=True), temporary_path(folder) as new:
        old = folder.with_name(f".{folder.name}.old")
        if old.exists() and not folder.exists():
            old.rename(folder)
        new.mkdir()
        yield new
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def lock_folder(folder: Path, wait: bool = False) -> Iterator[None]:
    """Lock a folder against other processes on this machine until the block or the process ends.

    Args:
        folder: created if missing.
        wait: whether to wait until another process releases its lock.

    Raises:
        BusyError: another process holds the lock, and `wait` is false.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BusyError(f"another process is using {folder}; wait until it ends, or use another folder") from None
    finally:
        os.close(descriptor)


def sync_file(out: IO[Any]) -> None:
    """Flush and fsync an open file so that its content is durable."""
    out.flush()
    os.fsync(out.fileno())


def sync_folder(folder: Path) -> None:
    """Fsync a folder so that renames in it are durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left in a folder; each folder is searched once per process."""
    folder = folder.resolve()
    if folder in _cleaned:
        return
    _cleaned.add(folder)
    for leftover in folder.glob(_ASIDE):
        try:
            descriptor = os.open(leftover, os.O_RDONLY)
        except OSError:
            continue  # already removed by another process, or owned by another user
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover, ignore_errors=True)
        except BlockingIOError:
            pass  # its process is still running
        finally:
            os.close(descriptor)
