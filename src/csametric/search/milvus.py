"""The connection to Milvus: a file (Milvus Lite, in this process) or a server, with errors in one sentence."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from csametric.errors import BusyError, UserError

SCHEMES = ("http://", "https://", "tcp://", "unix:")
TIMEOUT = 10.0  # seconds to wait for a server
LOCK = "LOCK"  # the file by which Milvus Lite locks a gallery

Client = Any  # a pymilvus.MilvusClient, which lacks types


def is_file(uri: str) -> bool:
    """Whether a gallery is a file on this machine rather than on a server.

    Examples:
        >>> is_file("people.db"), is_file("http://milvus:19530")
        (True, False)
    """
    return not uri.startswith(SCHEMES)


def connect(uri: str) -> Client:
    """Open a gallery's file, which is created if it is missing, or connect to a server.

    Raises:
        UserError: pymilvus is not installed, the name of the file does not end in .db, its folder does not exist, it has the
            format of another version, or the server cannot be reached.
        BusyError: another process has opened the file.
    """
    try:
        import pymilvus
    except ImportError as error:
        raise UserError("a gallery needs the packages of an extra; pip install 'csametric[search]'") from error
    for name in ("grpc", "milvus_lite", "pymilvus"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # they log every error that they also raise
    if is_file(uri):
        check_file(Path(uri))
    try:
        return pymilvus.MilvusClient(uri, timeout=TIMEOUT)
    except pymilvus.MilvusException as error:
        if is_file(uri):
            raise UserError(f"the gallery {uri} cannot be opened ({first_line(error)}); restore it, or index again") from error
        raise UserError(f"the Milvus server {uri} cannot be reached; start it, or check its address") from error


def release(uri: str) -> None:
    """Close a gallery's file, so that another process can open it."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(uri)


def check_file(path: Path) -> None:
    """Check that a gallery's file can be opened or created, because Milvus Lite does not say why it cannot.

    Raises:
        UserError: its name does not end in .db, its folder does not exist or may not be written, or it was not written by
            this version.
        BusyError: another process has opened it.
    """
    if path.suffix != ".db":
        raise UserError(f"a gallery's file must end in .db, got {path}; rename it, or name a server as http://HOST:19530")
    if not path.parent.is_dir():
        raise UserError(f"the folder {path.parent} does not exist; create it first")
    if path.is_file():
        raise UserError(f"{path} was written by another version, perhaps Milvus Lite 2; index again into another file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"{path} may not be written; change its permissions, or choose another folder")
    if (path / LOCK).exists() and _is_locked(path / LOCK):
        raise BusyError(
            f"{path} is open already, in another process or in this one; close it there, or use a Milvus server for several"
        )


def _is_locked(path: Path) -> bool:
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def explained(where: str = "") -> Iterator[None]:
    """Turn errors of Milvus inside the block into a sentence.

    Args:
        where: the condition that the block uses; the error is then likely about it.

    Raises:
        UserError: Milvus refused, or cannot be reached any more.
    """
    from pymilvus import MilvusException

    try:
        yield
    except MilvusException as error:
        if where:
            raise UserError(f"the condition {where!r} cannot be used: {readable(error)}") from error
        raise UserError(f"Milvus failed ({readable(error)}); run the same command again") from error


def readable(error: Exception) -> str:
    """What an error of Milvus says, without the lines that repeat the condition and point at a place in it."""
    lines = [line for line in str(getattr(error, "message", error)).splitlines() if line and not line.startswith(" ")]
    return "; ".join(lines)


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return readable(error).split("; ")[0]
