"""Errors that a user can cause and fix: `UserError` and its subclasses."""

import difflib
import errno
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

SHOWN = 80  # characters of a value that is cut
LONGEST_MESSAGE = 2000  # characters
_ENDLESS = re.compile(r"[^\s/;]{256,}")  # longer than the name of a file can be
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, line and paragraph separators


def printable(name: object) -> str:
    r"""Return a file name as one line of text: control characters and bytes that are not UTF-8 become escapes such as `\n`.

    Examples:
        >>> print(printable("holiday photos\n.png"))
        holiday photos\n.png
    """
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _UNPRINTABLE else character
        for character in str(name)
    )


def shortened(message: str, longest: int = LONGEST_MESSAGE) -> str:
    """A message whose words beyond the length of any file name are cut, and which ends after `longest` characters.

    Examples:
        >>> len(shortened("got " + "9" * 5000 + "; use 1")), shortened("got " + "9" * 5000 + "; use 1")[-11:]
        (94, '9...; use 1')
    """
    cut = _ENDLESS.sub(lambda match: f"{match[0][:SHOWN]}...", message)
    return cut if len(cut) <= longest else f"{cut[:longest]}..."


def suggestion(name: str, known: Iterable[str]) -> str:
    """The start of a hint about a misspelt name, ending in a space; empty if none of the known names resembles it.

    Examples:
        >>> suggestion("hardent", ["pcb", "hardnet"])
        'did you mean hardnet? '
    """
    nearest = difflib.get_close_matches(name, known, 1, 0.6)
    return f"did you mean {nearest[0]}? " if nearest else ""


def wrong_path(what: str, path: Path) -> str:
    """The start of a message about a path that is not what it should be.

    Args:
        what: "folder", or the kind of file, for example "photograph".
        path: where it was looked for.

    Examples:
        >>> wrong_path("folder", Path("holiday"))
        'folder holiday does not exist'
    """
    # Path.exists and Path.is_dir would raise for names that are too long
    if what == "folder" and os.path.exists(path):  # noqa: PTH110
        return f"{path} is a file, not a folder"
    return f"{path} is a folder, not a file" if os.path.isdir(path) else f"{what} {path} does not exist"  # noqa: PTH112


class UserError(ValueError):
    """A mistake that the user can fix; the message is one sentence that says what was wrong and what to do.

    The command prints the message and exits with status 2. Library callers may catch it as a `ValueError`. The message is one
    line whatever the names of files in it, and values of the user that fill a screen are cut.
    """

    def __str__(self) -> str:
        message = super().__str__().replace("\n\t", " ")  # torch's own messages are lists of indented lines
        return shortened(printable(message))


class StoppedError(BaseException):
    """Training was stopped by a signal after a checkpoint was saved; like Ctrl-C, it passes through `except Exception`.

    Attributes:
        signal_number: of the signal; commands exit with 128 plus this.
    """

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class DivergedError(UserError):
    """Training diverged: a gradient is NaN or infinite."""


class BusyError(UserError):
    """Another process is using the same folder."""


class FolderInUseError(UserError):
    """The folder of a new run holds another run, or something else."""


class NoDatasetError(UserError):
    """A dataset is needed and none was named."""


class FullDiskError(UserError):
    """The disk is full, or a quota is exceeded."""


@contextmanager
def explain_full_disk(path: Path, advice: str) -> Iterator[None]:
    """Turn "no space left" and "quota exceeded" errors inside the block into a `FullDiskError`.

    Args:
        path: a file or folder on the disk that is written to.
        advice: what the user should do; the message ends with it.

    Raises:
        FullDiskError: the block ran out of disk space.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise FullDiskError(f"the disk of {path} is full; {advice}") from error
