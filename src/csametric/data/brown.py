"""Brown / UBC PhotoTour: grey patches of 64 pixels on bitmap sheets, the 3D point of each, and the test pairs.

A subset is a folder of patches0000.bmp, ... (1024 x 1024, 16 x 16 patches, row by row), info.txt (a line a patch, its point
first) and m50_100000_100000_0.txt (a line a pair: patch, point, 0, patch, point, 0, 0). It is read once into a cache of
32 x 32 patches.

Legend: P patches, M pairs, S = 32 the side of a patch.
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
from csametric.errors import UserError
from csametric.files import sync_file

SUBSETS = {"liberty": 450_092, "notredame": 468_159, "yosemite": 633_587}
TEST_PAIRS = "m50_100000_100000_0.txt"
SHEET_SIDE, SHEET_PATCHES, CUT_SIDE, PATCH_SIDE = 1024, 256, 64, 32
_FORMAT = 1

Resampling = Literal["area", "cubic"]


@dataclass(frozen=True, kw_only=True)
class BrownSettings:
    """root: the folder that holds liberty, notredame and yosemite. train: the subset to train on; the others are tested on.

    resampling: as `read_brown` takes it. turn: what the paper calls the rotation by 90 degrees, as `data.sampling` knows it.
    """

    root: str = ""
    train: Literal["liberty", "notredame", "yosemite"] = "liberty"
    resampling: Resampling = "area"
    turn: Turn = "transpose"

    def without_paths(self) -> Self:
        """The settings without the place of the dataset."""
        return replace(self, root="")


@dataclass(frozen=True, kw_only=True)
class BrownSubset:
    """A subset, opened from the cache.

    patches: grey uint8 (P, 32, 32), memory-mapped. points: (P,), the 3D point each shows.
    """

    name: str
    patches: NDArray
    points: NDArray

    def __str__(self) -> str:
        return f"{self.name}: {len(self.patches):,} patches of {len(np.unique(self.points)):,} points{self._published()}"

    def _published(self) -> str:
        published = SUBSETS.get(self.name, len(self.patches))
        return "" if published == len(self.patches) else f" (published: {published:,} patches)"


@dataclass(frozen=True, kw_only=True)
class LabelledPairs:
    """patches: (M, 2), numbers of patches. is_match: (M,), whether both show the same point."""

    patches: NDArray
    is_match: NDArray


Tests = Mapping[str, tuple[BrownSubset, LabelledPairs]]


def read_brown(
    folder: Path, resampling: Resampling = "area", cache: Path | None = None, progress: Progress = lambda done, total: None
) -> BrownSubset:
    """A subset's patches at 32 x 32, cut into the cache if they are not there.

    Args:
        folder: the subset's own, such as ROOT/liberty.
        resampling: from 64 pixels by "area" (the mean of 2 x 2, HardNet) or "cubic" (RALNet).
        cache: the cache's folder, as `data.cache.cached_folder` takes it.
        progress: called with (sheets done, sheets in all).

    Raises:
        UserError: the folder, info.txt or a sheet is missing or damaged, or the disk is full.
    """
    points_P = read_points(folder)
    sheets = _sheets(folder, len(points_P))

    def write(aside: Path) -> None:
        with (aside / "patches.u8").open("wb") as out:
            read = prefetch(lambda sheet: _cut(sheet, resampling), sheets)
            left = len(points_P)
            for done, patches in enumerate(read, 1):
                out.write(patches[:left].data)
                left -= len(patches)
                progress(done, len(sheets))
            sync_file(out)

    stored = cached_folder(f"brown-{folder.name}-{cache_key([_FORMAT, resampling], sheets)}", write, cache) / "patches.u8"
    patches = map_cached(stored, (len(points_P), PATCH_SIDE, PATCH_SIDE))
    return BrownSubset(name=folder.name, patches=patches, points=points_P)


def read_test_pairs(folder: Path, points_P: NDArray, name: str = TEST_PAIRS) -> LabelledPairs:
    """The labelled pairs of a match file.

    Args:
        points_P: the 3D point of each patch, as info.txt lists them.

    Raises:
        UserError: the file is missing or damaged, names a patch that is not there, or another point than info.txt does.
    """
    path = folder / name
    table = _read_integers(path, columns=7)
    pairs_M2, points_M2 = table[:, [0, 3]], table[:, [1, 4]]
    if len(pairs_M2) == 0 or pairs_M2.min() < 0 or pairs_M2.max() >= len(points_P):
        problem = f"names patch {pairs_M2.max():,}" if len(pairs_M2) else "is empty"
        raise UserError(f"{path} {problem}, but {folder} has {len(points_P):,} patches; take both from the same download")
    differs_M = (points_P[pairs_M2] != points_M2).any(1)
    if differs_M.any():
        line = int(differs_M.argmax()) + 1
        raise UserError(
            f"{path} gives other points than info.txt in {differs_M.sum():,} lines, first in line {line:,}; "
            "take both from the same download"
        )
    is_match = points_M2[:, 0] == points_M2[:, 1]
    if is_match.all() or not is_match.any():
        raise UserError(
            f"{path} holds {'only' if is_match.all() else 'no'} matches, FPR95 needs both kinds; unpack the subset again"
        )
    return LabelledPairs(patches=pairs_M2, is_match=is_match)


def read_points(folder: Path) -> NDArray:
    """The 3D point of each patch of a subset, int64 (P,), from its info.txt; raises as `read_brown`."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; unpack the subset there (liberty, notredame or yosemite)")
    return _read_integers(folder / "info.txt", columns=2)[:, 0]


def _read_integers(path: Path, columns: int) -> NDArray:
    """A text table of whole numbers, int64 (lines, columns); a line with more or fewer is refused."""
    if not path.is_file():
        raise UserError(f"{path} is missing; unpack the subset again, it comes with the patches")
    try:
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # an empty file; its lines are counted later
            table = np.loadtxt(path, np.int64, comments=None, ndmin=2, encoding="ascii")
    except (ValueError, OverflowError) as error:  # loadtxt names the line
        raise UserError(f"{path} must hold {columns} whole numbers per line ({error}); unpack the subset again") from error
    if table.size and table.shape[1] != columns:
        raise UserError(f"{path} must hold {columns} whole numbers per line, got {table.shape[1]}; unpack the subset again")
    lines = path.read_bytes().rstrip().count(b"\n") + 1
    if len(table) and lines != len(table):  # loadtxt passes over empty lines, whose patches would be lost
        raise UserError(f"{path} has empty lines; unpack the subset again")
    return table.reshape(-1, columns)


def _sheets(folder: Path, patches: int) -> list[Path]:
    """The sheets that hold the first `patches` patches."""
    needed = [folder / f"patches{number:04}.bmp" for number in range(-(-patches // SHEET_PATCHES))]
    missing = [path for path in needed if not path.is_file()]
    if missing:
        raise UserError(
            f"{missing[0]} is missing ({len(missing):,} of {len(needed):,} sheets are, info.txt names {patches:,} patches); "
            "unpack the subset again"
        )
    return needed


def _cut(sheet: Path, resampling: Resampling) -> NDArray:
    """The patches of a sheet, uint8 (256, 32, 32)."""
    image = decode_grey(sheet).pixels
    if image.shape != (SHEET_SIDE, SHEET_SIDE):
        height, width = image.shape
        raise UserError(
            f"{sheet} has {width} x {height} pixels instead of {SHEET_SIDE} x {SHEET_SIDE}; unpack the subset again"
        )
    if resampling == "area":  # 2 x 2 pixels never reach into a neighbour: the whole sheet at once
        return _apart(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), PATCH_SIDE)
    side = (PATCH_SIDE, PATCH_SIDE)
    return np.stack([cv2.resize(patch, side, interpolation=cv2.INTER_CUBIC) for patch in _apart(image, CUT_SIDE)])


def _apart(sheet: NDArray, side: int) -> NDArray:
    """(16 S, 16 S) -> (256, S, S), row by row."""
    across = len(sheet) // side
    return np.ascontiguousarray(sheet.reshape(across, side, across, side).swapaxes(1, 2)).reshape(-1, side, side)


def brown_root(settings: BrownSettings) -> Path:
    """The folder of the subsets.

    Raises:
        UserError: none is named, or it is not there.
    """
    if not settings.root:
        raise UserError("there is no dataset to train on; give --data brown:ROOT, the folder of liberty, notredame, yosemite")
    root = Path(settings.root).expanduser()
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; name the one that holds liberty, notredame and yosemite")
    if (root / "info.txt").is_file():
        raise UserError(f"{root} is a subset; name the folder above, {root.parent}")
    return root


def open_brown_tests(settings: BrownSettings, names: list[str], cache: Path | None, progress: Progress) -> Tests:
    """Of the named subsets those that are there, with their test pairs.

    Raises:
        UserError: none is there, or one cannot be read.
    """
    root = brown_root(settings)
    present = [name for name in names if (root / name).is_dir()]
    if not present:
        raise UserError(f"{root} holds none of {', '.join(names)} to test on; unpack one there")
    subsets = {name: read_brown(root / name, settings.resampling, cache, progress) for name in present}
    return {name: (subset, read_test_pairs(root / name, subset.points)) for name, subset in subsets.items()}


@functools.cache
def count_brown(settings: BrownSettings) -> dict[str, Any]:
    """What environment.json of a run with these settings says of its data, from the subsets' lists alone; each is read once.

    Raises:
        UserError: a list is missing or damaged.
    """
    root = brown_root(settings)
    tests = [root / name for name in SUBSETS if name != settings.train and (root / name).is_dir()]
    return {
        "train": len(read_points(root / settings.train)),
        "tests": {folder.name: len(read_test_pairs(folder, read_points(folder)).is_match) for folder in tests},
    }
