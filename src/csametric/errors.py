"""What a user can cause and mend: the exception for it and its kinds, importable by every room."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(ValueError):
    """A mistake a user can mend; its message is one sentence that names the mend.

    The command prints the message and exits with status 2. A library caller may catch it as a `ValueError`.
    """


class DivergedError(UserError):
    """Training met a gradient that is not finite."""


class BusyError(UserError):
    """Another process is at work on the same run."""


class FolderInUseError(UserError):
    """The folder of a new run holds another run, or something else."""


class NoDatasetError(UserError):
    """A dataset is needed and none was named."""


class FullDiskError(UserError):
    """No space is left, or a quota is exceeded."""


@contextmanager
def explaining_full_disk(where: Path, mend: str) -> Iterator[None]:
    """Turns "no space left" and "quota exceeded" inside the block into a `FullDiskError` that ends with the mend."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise FullDiskError(f"the disk of {where} is full; {mend}") from error
