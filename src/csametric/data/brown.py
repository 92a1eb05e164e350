"""Brown / UBC PhotoTour: grey 64 x 64 patches on bitmap sheets, the 3D point that each patch shows, and the test pairs.

A subset is a folder that holds

    patches0000.bmp, ...     sheets of 1024 x 1024 pixels with 16 x 16 patches, row by row,
    info.txt                 one line per patch, which begins with its point,
    m50_100000_100000_0.txt  one line per test pair: patch, point, 0, patch, point, 0, 0.

Patches are reduced to 32 x 32 pixels once and cached.

Legend: P patches, M pairs, S = 32 side of a patch in pixels.
"""

import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from csametric.data.cache import Progress, cache_key, cached_folder, map_cached
from csametric.data.decoding import decode_grey
from csametric.data.loading import prefetch
from csametric.data.sampling import Turn
from csametric.errors import NoDatasetError, UserError, wrong_path
from csametric.files import sync_file

SUBSETS = {"liberty": 450_092, "notredame": 468_159, "yosemite": 633_587}  # published number of patches
TEST_PAIRS_FILE = "m50_100000_100000_0.txt"
SHEET_SIDE, CUT_SIDE, PATCH_SIDE = 1024, 64, 32  # pixels: a sheet, a released patch, a cached patch
SHEET_PATCHES = (SHEET_SIDE // CUT_SIDE) ** 2
_FORMAT = 1  # of the cache; a change of the cached content needs a new number

Resampling = Literal["area", "cubic"]


@dataclass(frozen=True, kw_only=True)
class BrownSettings:
    """The Brown subset to train on, and how its patches are read and augmented.

    Examples:
        >>> BrownSettings(root="/data/brown", train="yosemite").without_paths().root
        ''
    """

    root: str = ""  # the folder that holds liberty, notredame and yosemite
    train: Literal["liberty", "notredame", "yosemite"] = "liberty"  # the other two are tested on
    resampling: Resampling = "area"  # from 64 to 32 pixels, see `read_brown`
    turn: Turn = "transpose"  # the augmentation that the paper calls a rotation by 90 degrees, see `point_batch`

    def without_paths(self) -> Self:
        """Return a copy without the root, to compare settings across machines."""
        return replace(self, root="")


@dataclass(frozen=True, kw_only=True)
class BrownSubset:
    """A subset, opened from the cache."""

    name: str
    patches: NDArray  # uint8 (P, 32, 32), grey, memory-mapped
    points: NDArray  # int64 (P,), the 3D point that each patch shows

    def __str__(self) -> str:
        text = f"{self.name}: {len(self.patches):,} patches of {len(np.unique(self.points)):,} points"
        published = SUBSETS.get(self.name, len(self.patches))
        if published != len(self.patches):
            text += f" (published: {published:,} patches)"
        return text


@dataclass(frozen=True, kw_only=True)
class LabelledPairs:
    """Pairs of patches, and whether they match."""

    patches: NDArray  # int64 (M, 2), indices of patches
    is_match: NDArray  # bool (M,), whether both patches show the same point


TestSubsets = Mapping[str, tuple[BrownSubset, LabelledPairs]]


def read_brown(
    folder: Path, resampling: Resampling = "area", cache: Path | None = None, progress: Progress = lambda done, total: None
) -> BrownSubset:
    """Open a subset, reducing its patches to 32 x 32 pixels and caching them first if needed.

    Args:
        folder: of the subset, such as ROOT/liberty.
        resampling: "area" (the mean of 2 x 2 pixels, as in HardNet) or "cubic" (as in RALNet).
        cache: the folder of the cache; by default $CSAMETRIC_CACHE or ~/.cache/csametric.
        progress: called with (sheets done, sheets in total).

    Raises:
        UserError: the folder, info.txt or a sheet is missing or damaged, or the disk is full.
    """
    points_P = read_points(folder)
    sheets = _sheets(folder, len(points_P))

    def write(temporary: Path) -> None:
        with (temporary / "patches.u8").open("wb") as out:
            remaining = len(points_P)  # the last sheet may be filled in part
            for done, patches in enumerate(prefetch(lambda sheet: _read_sheet(sheet, resampling), sheets), 1):
                out.write(patches[:remaining].data)
                remaining -= len(patches)
                progress(done, len(sheets))
            sync_file(out)

    stored = cached_folder(f"brown-{folder.name}-{cache_key([_FORMAT, resampling], sheets)}", write, cache) / "patches.u8"
    try:
        patches = map_cached(stored, (len(points_P), PATCH_SIDE, PATCH_SIDE))
    except UserError as error:
        raise UserError(f"{error}, or unpack {folder / 'info.txt'} again if it has lost or gained lines") from error
    return BrownSubset(name=folder.name, patches=patches, points=points_P)


def read_test_pairs(folder: Path, points_P: NDArray, name: str = TEST_PAIRS_FILE) -> LabelledPairs:
    """Read the labelled pairs of a match file.

    Args:
        folder: of the subset.
        points_P: the 3D point of each patch, from info.txt.
        name: of the match file.

    Raises:
        UserError: the file is missing or damaged, names a patch that does not exist, or contradicts info.txt.
    """
    path = folder / name
    table = _read_integers(path, columns=7)
    pairs_M2, points_M2 = table[:, [0, 3]], table[:, [1, 4]]
    _check_pairs(path, pairs_M2, points_M2, points_P)
    is_match = points_M2[:, 0] == points_M2[:, 1]
    if is_match.all():
        raise UserError(f"{path} contains matches only, but FPR95 needs non-matches too; unpack the subset again")
    if not is_match.any():
        raise UserError(f"{path} contains no matches, but FPR95 needs some; unpack the subset again")
    return LabelledPairs(patches=pairs_M2, is_match=is_match)


def _check_pairs(path: Path, pairs_M2: NDArray, points_M2: NDArray, points_P: NDArray) -> None:
    """Raise `UserError` unless the pairs name existing patches, with the points of info.txt."""
    if len(pairs_M2) == 0:
        raise UserError(f"{path} is empty; unpack the subset again")
    invalid = pairs_M2[(pairs_M2 < 0) | (pairs_M2 >= len(points_P))]
    if len(invalid):
        raise UserError(
            f"{path} names patch {invalid[0]:,}, but {path.parent} has {len(points_P):,} patches; "
            "take both from the same download"
        )
    differs_M = (points_P[pairs_M2] != points_M2).any(1)
    if differs_M.any():
        line = int(differs_M.argmax()) + 1
        raise UserError(
            f"{path} and info.txt give different points in {differs_M.sum():,} lines, first in line {line:,}; "
            "take both from the same download"
        )


def read_points(folder: Path) -> NDArray:
    """Read the 3D point of each patch of a subset from its info.txt.

    Returns:
        int64 (P,).

    Raises:
        UserError: the folder or info.txt is missing, or info.txt is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{wrong_path('folder', folder)}; unpack the subset there (liberty, notredame or yosemite)")
    points = _read_integers(folder / "info.txt", columns=2)[:, 0]
    if not len(points):
        raise UserError(f"{folder / 'info.txt'} is empty; unpack the subset again")
    return points


def _read_integers(path: Path, columns: int) -> NDArray:
    """Read a text table of whole numbers, int64 (lines, columns); every line must have that many columns."""
    if not path.is_file():
        raise UserError(f"{path} is missing, although it comes with the patches; unpack the subset again")
    try:
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # about an empty file, which callers refuse
            table = np.loadtxt(path, np.int64, comments=None, ndmin=2, encoding="ascii")
    except (ValueError, OverflowError) as error:  # the message of loadtxt names the line
        raise UserError(f"{path} must have {columns} whole numbers per line ({error}); unpack the subset again") from error
    if table.size and table.shape[1] != columns:
        raise UserError(f"{path} must have {columns} whole numbers per line, got {table.shape[1]}; unpack the subset again")
    lines = path.read_bytes().rstrip().count(b"\n") + 1
    if len(table) and lines != len(table):  # loadtxt skips empty lines, which would shift the patches after them
        raise UserError(f"{path} must not have empty lines; unpack the subset again")
    return table.reshape(-1, columns)


def _sheets(folder: Path, patches: int) -> list[Path]:
    """The paths of the sheets that hold the first `patches` patches."""
    sheets = [folder / f"patches{number:04}.bmp" for number in range(-(-patches // SHEET_PATCHES))]
    missing = [path for path in sheets if not path.is_file()]
    if missing:
        raise UserError(
            f"{len(missing):,} of the {len(sheets):,} sheets for the {patches:,} patches in info.txt are missing, "
            f"first {missing[0]}; unpack the subset again"
        )
    return sheets


def _read_sheet(path: Path, resampling: Resampling) -> NDArray:
    """The reduced patches of a sheet, uint8 (256, 32, 32)."""
    image = decode_grey(path).pixels
    if image.shape != (SHEET_SIDE, SHEET_SIDE):
        height, width = image.shape
        raise UserError(f"{path} must have {SHEET_SIDE} x {SHEET_SIDE} pixels, got {width} x {height}; unpack the subset again")
    if resampling == "area":  # blocks of 2 x 2 pixels do not cross patches, so the whole sheet can be reduced at once
        return _split_sheet(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), PATCH_SIDE)
    size = (PATCH_SIDE, PATCH_SIDE)
    return np.stack([cv2.resize(patch, size, interpolation=cv2.INTER_CUBIC) for patch in _split_sheet(image, CUT_SIDE)])


def _split_sheet(sheet: NDArray, side: int) -> NDArray:
    """Split a sheet (16 S, 16 S) into its patches (256, S, S), row by row."""
    across = len(sheet) // side
    return np.ascontiguousarray(sheet.reshape(across, side, across, side).swapaxes(1, 2)).reshape(-1, side, side)


def brown_root(settings: BrownSettings) -> Path:
    """Return the folder that holds the subsets.

    Raises:
        UserError: the root is not set, does not exist, or is itself a subset.
    """
    if not settings.root:
        raise NoDatasetError("no dataset given; set data.root to the folder that holds liberty, notredame and yosemite")
    root = Path(settings.root).expanduser()
    if not root.is_dir():
        raise UserError(f"{wrong_path('folder', root)}; give the one that holds liberty, notredame and yosemite")
    if (root / "info.txt").is_file():
        raise UserError(f"{root} is a single subset; give the folder above it, {root.parent}")
    return root


def open_brown_tests(settings: BrownSettings, names: list[str], cache: Path | None, progress: Progress) -> TestSubsets:
    """Open those of the named subsets that exist, with their test pairs.

    Args:
        settings: where the subsets are, and how patches are reduced.
        names: of the subsets, such as "liberty".
        cache: the folder of the cache, as for `read_brown`.
        progress: called with (sheets done, sheets in total) of each subset that is not cached yet.

    Raises:
        UserError: none of the subsets exists, or one cannot be read.
    """
    root = brown_root(settings)
    present = [name for name in names if (root / name).is_dir()]
    if not present:
        raise UserError(f"{root} holds none of {', '.join(names)} to test on; unpack one there")
    subsets = {name: read_brown(root / name, settings.resampling, cache, progress) for name in present}
    return {name: (subset, read_test_pairs(root / name, subset.points)) for name, subset in subsets.items()}


@functools.cache
def count_brown(settings: BrownSettings) -> dict[str, Any]:
    """Count training patches and test pairs from the text files alone, as environment.json of a run records them.

    Returns:
        {"train": patches, "tests": {subset: pairs}}, cached for each value of the settings.

    Raises:
        UserError: a text file is missing or damaged.
    """
    root = brown_root(settings)
    tests = [root / name for name in SUBSETS if name != settings.train and (root / name).is_dir()]
    return {
        "train": len(read_points(root / settings.train)),
        "tests": {folder.name: len(read_test_pairs(folder, read_points(folder)).is_match) for folder in tests},
    }
