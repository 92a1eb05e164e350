"""Brown / UBC PhotoTour: grey patches of 64 pixels on bitmap sheets, the 3D point of each, and the test pairs.

A subset is a folder of patches0000.bmp, ... (1024 x 1024, 16 x 16 patches, row by row), info.txt (a line a patch, its point
first) and m50_100000_100000_0.txt (a line a pair: patch, point, 0, patch, point, 0, 0). It is read once into a cache of
32 x 32 patches.

Legend: P patches, M pairs, S = 32 the side of a patch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from csametric.data.cache import Progress, cache_key, cached_folder, sync
from csametric.data.loading import made_ahead
from csametric.data.sampling import Turn
from csametric.errors import UserError

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
    points_P = _read_points(folder)
    sheets = _sheets(folder, len(points_P))

    def write(aside: Path) -> None:
        with (aside / "patches.u8").open("wb") as out:
            read = made_ahead(lambda sheet: _cut(sheet, resampling), sheets)
            left = len(points_P)
            for done, patches in enumerate(read, 1):
                out.write(patches[:left].data)
                left -= len(patches)
                progress(done, len(sheets))
            sync(out)

    stored = cached_folder(f"brown-{folder.name}-{cache_key([_FORMAT, resampling], sheets)}", write, cache) / "patches.u8"
    patches = np.memmap(stored, np.uint8, "r").reshape(-1, PATCH_SIDE, PATCH_SIDE)
    return BrownSubset(name=folder.name, patches=patches, points=points_P)


def count_patches(folder: Path) -> int:
    """How many patches a subset has by its info.txt; raises as `read_brown`."""
    return len(_read_points(folder))


def read_test_pairs(folder: Path, patches: int, name: str = TEST_PAIRS) -> LabelledPairs:
    """The labelled pairs of a match file.

    Args:
        patches: how many patches the subset has.

    Raises:
        UserError: the file is missing, damaged, or names a patch that is not there.
    """
    path = folder / name
    table = _read_integers(path, columns=7)
    pairs_M2 = table[:, [0, 3]]
    if len(pairs_M2) == 0 or pairs_M2.min() < 0 or pairs_M2.max() >= patches:
        problem = f"names patch {pairs_M2.max():,}" if len(pairs_M2) else "is empty"
        raise UserError(f"{path} {problem}, but {folder} has {patches:,} patches; take both from the same download")
    is_match = table[:, 1] == table[:, 4]
    if is_match.all() or not is_match.any():
        raise UserError(
            f"{path} holds {'only' if is_match.all() else 'no'} matches, FPR95 needs both kinds; unpack the subset again"
        )
    return LabelledPairs(patches=pairs_M2, is_match=is_match)


def _read_points(folder: Path) -> NDArray:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; unpack the subset there (liberty, notredame or yosemite)")
    return _read_integers(folder / "info.txt", columns=2)[:, 0]


def _read_integers(path: Path, columns: int) -> NDArray:
    """The first columns of a text table, (lines, columns)."""
    if not path.is_file():
        raise UserError(f"{path} is missing; unpack the subset again, it comes with the patches")
    try:
        values = np.array(path.read_bytes().split(), dtype=np.int64)
        return values.reshape(-1, columns)
    except ValueError as error:
        raise UserError(f"{path} is no table of {columns} whole numbers a line; unpack the subset again") from error


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
    image = cv2.imread(str(sheet), cv2.IMREAD_GRAYSCALE)
    if image is None or image.shape != (SHEET_SIDE, SHEET_SIDE):
        found = "no image" if image is None else f"{image.shape[1]} x {image.shape[0]} pixels"
        raise UserError(f"{sheet} is {found} instead of {SHEET_SIDE} x {SHEET_SIDE} pixels; unpack the subset again")
    if resampling == "area":  # 2 x 2 pixels never reach into a neighbour: the whole sheet at once
        return _apart(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), PATCH_SIDE)
    side = (PATCH_SIDE, PATCH_SIDE)
    return np.stack([cv2.resize(patch, side, interpolation=cv2.INTER_CUBIC) for patch in _apart(image, CUT_SIDE)])


def _apart(sheet: NDArray, side: int) -> NDArray:
    """(16 S, 16 S) -> (256, S, S), row by row."""
    across = len(sheet) // side
    return np.ascontiguousarray(sheet.reshape(across, side, across, side).swapaxes(1, 2)).reshape(-1, side, side)
