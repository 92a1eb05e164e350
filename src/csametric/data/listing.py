"""List image files: the only place where folders are searched for images."""

import os
from pathlib import Path
from typing import NamedTuple

from csametric.errors import UserError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_SYSTEM = (".", "@", "__MACOSX")  # .ipynb_checkpoints, @eaDir and the like hold copies of images


class Listing(NamedTuple):
    """The files below a folder, each list sorted.

    images: files with a suffix in `SUFFIXES`. others: visible files with any other suffix.
    skipped: hidden and system files, and folders of that kind, whose contents are not listed.
    """

    images: list[Path]
    others: list[Path]
    skipped: list[Path]


def list_images(folder: Path, recursive: bool = True) -> Listing:
    """List the image files in a folder and, by default, in the folders below it.

    Files and folders whose names begin with a dot, `@` or `__MACOSX` are skipped. Links to files count as files, links to
    folders are not followed.

    Raises:
        UserError: no such folder, or one below it cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; correct the path")
    listing = Listing([], [], [])
    for root, folders, files in os.walk(folder, onerror=_refuse):
        listing.skipped.extend(Path(root, name) for name in folders if _is_system(name))
        folders[:] = [name for name in folders if recursive and not _is_system(name)]
        for name in files:
            path = Path(root, name)
            if _is_system(name):
                listing.skipped.append(path)
            elif path.suffix.lower() in SUFFIXES:
                listing.images.append(path)
            else:
                listing.others.append(path)
    return Listing(*map(sorted, listing))


def list_folders(folder: Path) -> list[Path]:
    """The visible folders directly in a folder, sorted; links to folders count.

    Raises:
        UserError: no such folder, or it cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_system(path.name))
    except OSError as error:
        _refuse(error)
        raise


def _is_system(name: str) -> bool:
    return name.startswith(_SYSTEM)


def _refuse(error: OSError) -> None:
    """An unreadable folder would silently be missing from the data."""
    raise UserError(f"cannot read the folder {error.filename} ({error.strerror}); change its permissions, or move it out")
