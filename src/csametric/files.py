"""Files and folders on disk: atomic writes, folders replaced as a whole, locks between processes.

A killed process leaves at most one hidden folder, `.csametric-*.part`. Its lock ends with the process, so the next process
that writes to the same parent folder recognises it as abandoned and removes it.
"""

import fcntl
import os
import secrets
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from csametric.errors import BusyError, UserError

_ASIDE = ".csametric-*.part"
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, line and paragraph separators
_cleaned: set[Path] = set()  # folders from which this process has removed what killed processes left


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write to a temporary file, fsync it, and rename it to `path`.

    Readers see the old file or the new one, never a part, also after a kill. Of two processes that write the same file, the
    last to finish wins.
    """
    with aside(path) as part:
        with part.open("xb") as out:
            write(out)
            sync_file(out)
        part.replace(path)
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text, encoded as UTF-8."""
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


def copy_atomically(source: Path, target: Path) -> None:
    """`write_atomically` with the content of another file."""
    with source.open("rb") as content:
        write_atomically(target, lambda out: shutil.copyfileobj(content, out))


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Yield a path on the same file system that no other process uses, to be renamed to `path` when complete.

    Whatever is still there when the block ends is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    folder = path.parent / f".csametric-{secrets.token_hex(8)}.new"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # before the folder gets the name under which others look for abandoned ones
        folder = folder.rename(folder.with_suffix(".part"))
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `folder` when the block ends; if the block fails, nothing changes.

    Other processes that replace a folder in the same parent wait meanwhile. A kill between the two renames leaves the old
    folder under the name `.NAME.old`; the next call puts it back.
    """
    with lock_folder(folder.parent, wait=True), aside(folder) as new:
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
    """Hold the folder for this process until the block ends or the process does.

    Args:
        folder: created if missing.
        wait: whether to wait for another process that holds it.

    Raises:
        BusyError: another process on this machine holds it, and `wait` is false.
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
    """Flush and fsync an open file, so that its content is on the disk."""
    out.flush()
    os.fsync(out.fileno())


def sync_folder(folder: Path) -> None:
    """Fsync a folder, so that renames in it are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def printable(name: object) -> str:
    r"""A file name as one line of text: control characters and bytes that are not UTF-8 appear as escapes such as `\n`."""
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _UNPRINTABLE else letter
        for letter in str(name)
    )


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left in a folder; looked for once per process."""
    folder = folder.resolve()
    if folder in _cleaned:
        return
    _cleaned.add(folder)
    for left in folder.glob(_ASIDE):
        try:
            descriptor = os.open(left, os.O_RDONLY)
        except OSError:
            continue  # another process was faster, or it is another user's
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            pass  # its process is still at work
        finally:
            os.close(descriptor)
