"""List image files: the only place where folders are searched for images."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from csametric.errors import UserError, wrong_path

SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_SYSTEM = (".", "@", "__MACOSX")  # .ipynb_checkpoints, @eaDir and similar folders hold copies of images


class Listing(NamedTuple):
    """The files below a folder, each list sorted."""

    images: list[Path]  # files with a suffix in `SUFFIXES`
    others: list[Path]  # visible files with any other suffix
    skipped: list[Path]  # hidden and system files, and such folders, whose contents are not listed


def list_images(folder: Path, recursive: bool = True, excluded: Path | None = None) -> Listing:
    """List the image files of a folder.

    Files and folders whose names begin with a dot, `@` or `__MACOSX` are skipped. Links to files count as files; links to
    folders are not followed.

    Args:
        folder: where to search.
        recursive: whether to search the folders below it too.
        excluded: a folder below it that is left out, for results.

    Raises:
        UserError: the folder does not exist, or one below it cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{wrong_path('folder', folder)}; correct the path")
    listing = Listing([], [], [])
    outside = None if excluded is None else excluded.absolute()
    for root, folders, files in os.walk(folder, onerror=_raise_unreadable):
        listing.skipped.extend(Path(root, name) for name in folders if _is_system(name))
        folders[:] = [  # os.walk descends into these
            name for name in folders if recursive and not _is_system(name) and Path(root, name).absolute() != outside
        ]
        for name in files:
            path = Path(root, name)
            if _is_system(name):
                listing.skipped.append(path)
            elif path.suffix.lower() in SUFFIXES:
                listing.images.append(path)
            else:
                listing.others.append(path)
    return Listing(*map(sorted, listing))


def describe_skipped(listings: Sequence[Listing]) -> list[str]:
    """One sentence about hidden and system files and one about files of other types, where folders hold any.

    Examples:
        >>> describe_skipped([Listing([], [Path("a.heic"), Path("b.HEIC"), Path("notes")], [Path(".thumbs")])])
        ['1 hidden or system file or folder skipped, first .thumbs', 'not read as images: 2 .heic, 1 without suffix']
    """
    sentences = []
    skipped = [path for listing in listings for path in listing.skipped]
    if skipped:
        what = "file or folder" if len(skipped) == 1 else "files or folders"
        sentences.append(f"{len(skipped):,} hidden or system {what} skipped, first {min(skipped)}")
    suffixes = Counter(path.suffix.lower() or "without suffix" for listing in listings for path in listing.others)
    if suffixes:
        sentences.append(f"not read as images: {', '.join(f'{count:,} {suffix}' for suffix, count in suffixes.most_common())}")
    return sentences


def list_folders(folder: Path) -> list[Path]:
    """List the visible folders directly in a folder, sorted; links to folders count.

    Raises:
        UserError: the folder does not exist or cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_system(path.name))
    except OSError as error:
        _raise_unreadable(error)
        raise


def _is_system(name: str) -> bool:
    return name.startswith(_SYSTEM)


def _raise_unreadable(error: OSError) -> None:
    """Raise `UserError` for a folder that cannot be read, which `os.walk` would silently leave out."""
    raise UserError(f"cannot read the folder {error.filename} ({error.strerror}); change its permissions or move it elsewhere")
