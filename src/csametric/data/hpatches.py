"""HPatches, the patch release: sequences of grey patches, splits, task files, and descriptors in the benchmark's CSV layout.

ROOT holds a folder a sequence (i_ajuntament, ...) with ref.png, e1.png ... t5.png: columns of N patches of 65 x 65 pixels. Task
files (`verif_*_split-X.csv`, `retr_*_split-X.csv`) lie in ROOT/tasks, or in ROOT itself.

Legend: N patches of a sequence, M pairs, D dimensions.
"""

import csv
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from csametric.data.decoding import decode_grey
from csametric.data.listing import list_folders
from csametric.errors import UserError
from csametric.files import write_atomically

LEVELS = {"easy": "e", "hard": "h", "tough": "t"}
IMAGES = 6  # the reference and five targets
KINDS = ("ref", *(f"{letter}{image}" for letter in LEVELS.values() for image in range(1, IMAGES)))
RELEASED_SIDE, PATCH_SIDE = 65, 32
VERIFICATION_FILES = ("verif_pos", "verif_neg_intra", "verif_neg_inter")
RETRIEVAL_FILES = ("retr_queries", "retr_distractors")
SEED, PAIRS = 42, 1_000_000

Describe = Callable[[NDArray], NDArray]
Sequences = Mapping[str, Mapping[str, NDArray]]


@cache
def splits() -> dict[str, list[str]]:
    """The test sequences of each split (a, b, c, illum, view, full) in their published order."""
    return json.loads((files("csametric.data") / "hpatches_splits.json").read_text())


def find_sequences(root: Path) -> list[str]:
    """The names of the sequences that are there, sorted.

    Raises:
        UserError: the folder is missing or holds none.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; name the one that holds i_ajuntament and the other sequences")
    names = [folder.name for folder in list_folders(root) if folder.name[:2] in ("i_", "v_")]
    if not names:
        raise UserError(f"{root} holds no sequence (i_* or v_*); name the folder of HPatches' patch release")
    return names


def read_sequence(folder: Path) -> dict[str, NDArray]:
    """The patches of a sequence by kind (ref, e1 ... t5), each uint8 (N, 65, 65).

    Raises:
        UserError: a file is missing or damaged, or the kinds differ in their number of patches.
    """
    patches = {kind: _read_column(folder / f"{kind}.png") for kind in KINDS}
    check_counts(folder, patches)
    return patches


def _read_column(path: Path) -> NDArray:
    if not path.is_file():
        raise UserError(f"{path} is missing; unpack the sequence again")
    column = decode_grey(path).pixels
    if column.shape[1] != RELEASED_SIDE or len(column) % RELEASED_SIDE:
        raise UserError(f"{path} is no column of {RELEASED_SIDE} x {RELEASED_SIDE} patches; unpack the sequence again")
    return column.reshape(-1, RELEASED_SIDE, RELEASED_SIDE)


def check_counts(folder: Path, of_kinds: Mapping[str, NDArray]) -> None:
    """Raises `UserError` where the kinds of a sequence differ in their number of patches."""
    expected = len(of_kinds["ref"])
    for kind, values in of_kinds.items():
        if len(values) != expected:
            raise UserError(f"{folder} has {expected} patches in ref and {len(values)} in {kind}; make or unpack it again")


def describe_sequence(folder: Path, describe: Describe) -> dict[str, NDArray]:
    """The descriptors of a sequence by kind, each float32 (N, D); patches are reduced from 65 to 32 pixels by area.

    Args:
        describe: uint8 (K, 32, 32) -> (K, D).
    """
    patches = read_sequence(folder)
    small = [
        cv2.resize(patch, (PATCH_SIDE, PATCH_SIDE), interpolation=cv2.INTER_AREA) for kind in KINDS for patch in patches[kind]
    ]
    described = np.asarray(describe(np.stack(small)), np.float32)
    return dict(zip(KINDS, np.split(described, len(KINDS)), strict=True))


def write_descriptors(folder: Path, of_kinds: Mapping[str, NDArray]) -> None:
    """The descriptors of a sequence as the benchmark reads them: FOLDER/ref.csv ..., a row a patch, commas between."""
    for kind, values in of_kinds.items():
        table = partial(np.savetxt, X=values, fmt="%.8g", delimiter=",")
        write_atomically(folder / f"{kind}.csv", table)


def read_descriptors(folder: Path) -> dict[str, NDArray]:
    """The descriptors of a sequence by kind, each float32 (N, D), from files with commas or semicolons.

    Raises:
        UserError: a file is missing or no table, or the kinds differ in their number of rows or columns.
    """
    of_kinds = {kind: _read_table(folder / f"{kind}.csv") for kind in KINDS}
    check_counts(folder, of_kinds)
    widths = {kind: values.shape[1] for kind, values in of_kinds.items()}
    odd = next((kind for kind in KINDS if widths[kind] != widths["ref"]), None)
    if odd:
        raise UserError(f"{folder} has {widths['ref']} columns in ref.csv and {widths[odd]} in {odd}.csv; write them again")
    return of_kinds


def _read_table(path: Path) -> NDArray:
    if not path.is_file():
        raise UserError(f"{path} is missing; write the descriptors of every kind ({', '.join(KINDS[:3])}, ...)")
    try:
        with path.open() as file:
            delimiter = ";" if ";" in file.readline() else ","
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # an empty file; its rows are counted later
            values = np.loadtxt(path, np.float32, delimiter=delimiter, ndmin=2)
    except ValueError as error:
        raise UserError(f"{path} is no table of numbers ({error}); write the descriptors again") from error
    if not np.isfinite(values).all():
        raise UserError(f"{path} holds nan or infinite values; write the descriptors again")
    return values


def find_task_file(root: Path, name: str, split: str) -> Path | None:
    """The file of a task, such as "retr_queries", where it is there."""
    places = [folder / f"{name}_split-{split}.csv" for folder in (root / "tasks", root)]
    return next((path for path in places if path.is_file()), None)


def read_task(path: Path, names: Sequence[str]) -> NDArray:
    """A task file as whole numbers, (M, 6): sequence, image, patch, twice; or (M, 2): sequence, patch.

    Args:
        names: what the numbers of sequences stand for.

    Raises:
        UserError: the file is damaged or names another sequence.
    """
    numbers = {name: str(number) for number, name in enumerate(names)}
    try:
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no text; take it from the benchmark again") from error
    header, rows = rows[0] if rows else [], rows[1:]
    if len(header) not in (2, 6) or not rows:
        raise UserError(f"{path} is no task file of HPatches; take it from the benchmark")
    places = [place for place, column in enumerate(header) if column.startswith("s")]
    try:
        for row in rows:
            for place in places:
                row[place] = numbers[row[place]]
        return np.array(rows, dtype=np.int64).reshape(-1, len(header))
    except KeyError as error:
        raise UserError(
            f"{path} names the sequence {error.args[0]}, which is not in its split; take it from the benchmark"
        ) from error
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} is no task file of HPatches; take it from the benchmark") from error


def check_task(path: Path, rows: NDArray, counts: Sequence[int]) -> None:
    """Raises `UserError` where a task names an image or a patch that is not there.

    Args:
        rows: as `read_task` returns them. counts: patches of each sequence.
    """
    sides = [rows[:, :3], rows[:, 3:]] if rows.shape[1] == 6 else [np.insert(rows, 1, 0, axis=1)]
    for sequences, images, patches in (side.T for side in sides):
        wrong = (images < 0) | (images >= IMAGES) | (patches < 0) | (patches >= np.asarray(counts)[sequences])
        if wrong.any():
            line = int(wrong.argmax()) + 2
            raise UserError(f"{path} names a patch in line {line} that its sequence has not; take both from one release")


def verification_pairs(counts: Sequence[int], pairs: int = PAIRS) -> tuple[NDArray, NDArray, NDArray]:
    """Positives, negatives within and across sequences by the published seeded procedure, each (M, 6) as `read_task`.

    The benchmark draws with NumPy's legacy generator, seed 42: a sequence a pair, two patches of it without repetition, two of
    the first five images, then a sequence and a patch of it for the negatives across. About half a minute for a million pairs.

    Args:
        counts: the number of patches of each sequence of the split, in its published order.
    """
    legacy = np.random.RandomState(SEED)
    sequences = legacy.choice(len(counts), pairs)
    patches = draw_two(legacy, [counts[sequence] for sequence in sequences])
    images = draw_two(legacy, [IMAGES - 1] * pairs)
    others = legacy.choice(len(counts), pairs)
    others_patches = np.array([legacy.randint(counts[other]) for other in others])
    first = np.stack([sequences, images[:, 0], patches[:, 0]], 1)
    return (
        np.hstack([first, np.stack([sequences, images[:, 1], patches[:, 0]], 1)]),
        np.hstack([first, np.stack([sequences, images[:, 1], patches[:, 1]], 1)]),
        np.hstack([first, np.stack([others, images[:, 1], others_patches], 1)]),
    )


def draw_two(legacy: np.random.RandomState, counts: Sequence[int]) -> NDArray:
    """Two different numbers below each count, as `numpy.random.choice(count, 2, replace=False)` draws them, (M, 2)."""
    return np.array([legacy.permutation(count)[:2].tolist() for count in counts])  # a slice would keep each whole permutation
