"""HPatches, the patch release: sequences, read_splits, task files, and descriptors in the benchmark's CSV layout.

ROOT holds one folder per sequence (i_ajuntament, ...) with ref.png, e1.png ... t5.png, each a column of N grey patches of
65 x 65 pixels. Task files (`verif_*_split-X.csv`, `retr_*_split-X.csv`) are in ROOT/tasks or in ROOT itself.

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
from csametric.errors import UserError, wrong_path
from csametric.files import write_atomically

LEVELS = {"easy": "e", "hard": "h", "tough": "t"}
IMAGES = 6  # the reference and five targets
PATCH_KINDS = ("ref", *(f"{letter}{image}" for letter in LEVELS.values() for image in range(1, IMAGES)))
RELEASED_SIDE, PATCH_SIDE = 65, 32  # pixels: a patch as released, and as networks take it
VERIFICATION_FILES = ("verif_pos", "verif_neg_intra", "verif_neg_inter")
RETRIEVAL_FILES = ("retr_queries", "retr_distractors")
SEED, PAIRS = 42, 1_000_000  # of the benchmark's verification task

Describe = Callable[[NDArray], NDArray]
Sequences = Mapping[str, Mapping[str, NDArray]]


@cache
def read_splits() -> dict[str, list[str]]:
    """Return the test sequences of each split (a, b, c, illum, view, full) in their published order.

    Examples:
        >>> len(read_splits()["full"]), read_splits()["a"][0]
        (116, 'i_ajuntament')
    """
    return json.loads((files("csametric.data") / "hpatches_splits.json").read_text())


def find_sequences(root: Path) -> list[str]:
    """List the names of the sequences in a folder, sorted.

    Raises:
        UserError: the folder does not exist or holds no sequence.
    """
    if not root.is_dir():
        raise UserError(f"{wrong_path('folder', root)}; give the one that holds i_ajuntament and the other sequences")
    names = [folder.name for folder in list_folders(root) if folder.name.startswith(("i_", "v_"))]
    if not names:
        raise UserError(f"{root} holds no sequence (i_* or v_*); give the folder of HPatches' patch release")
    return names


def read_sequence(folder: Path) -> dict[str, NDArray]:
    """Read the patches of a sequence.

    Returns:
        By kind (ref, e1 ... t5), each uint8 (N, 65, 65).

    Raises:
        UserError: a file is missing or damaged, or the kinds differ in their number of patches.
    """
    patches = {kind: _read_column(folder / f"{kind}.png") for kind in PATCH_KINDS}
    check_counts(folder, patches)
    return patches


def _read_column(path: Path) -> NDArray:
    if not path.is_file():
        raise UserError(f"{path} is missing; unpack the sequence again")
    column = decode_grey(path).pixels
    height, width = column.shape
    if width != RELEASED_SIDE or height % RELEASED_SIDE:
        raise UserError(
            f"{path} must be a column of {RELEASED_SIDE} x {RELEASED_SIDE} patches, got {width} x {height} pixels; "
            "unpack the sequence again"
        )
    return column.reshape(-1, RELEASED_SIDE, RELEASED_SIDE)


def check_counts(folder: Path, values_by_kind: Mapping[str, NDArray]) -> None:
    """Check that all kinds of a sequence have the same number of patches.

    Args:
        folder: of the sequence, named in the message.
        values_by_kind: arrays with one row per patch.

    Raises:
        UserError: a kind has more or fewer rows than ref.

    Examples:
        >>> check_counts(Path("v_wall"), {"ref": np.zeros(5), "e1": np.zeros(4)})
        Traceback (most recent call last):
        csametric.errors.UserError: v_wall must have as many patches in e1 as in ref (5), got 4; write or unpack it again
    """
    expected = len(values_by_kind["ref"])
    for kind, values in values_by_kind.items():
        if len(values) != expected:
            raise UserError(
                f"{folder} must have as many patches in {kind} as in ref ({expected}), got {len(values)}; "
                "write or unpack it again"
            )


def describe_sequence(folder: Path, describe: Describe) -> dict[str, NDArray]:
    """Compute the descriptors of a sequence.

    Args:
        folder: of the sequence; its patches are reduced from 65 to 32 pixels by area.
        describe: uint8 (K, 32, 32) -> (K, D).

    Returns:
        By kind, each float32 (N, D).

    Raises:
        UserError: as `read_sequence`.
    """
    patches = read_sequence(folder)
    reduced = [
        cv2.resize(patch, (PATCH_SIDE, PATCH_SIDE), interpolation=cv2.INTER_AREA)
        for kind in PATCH_KINDS
        for patch in patches[kind]
    ]
    descriptors = np.asarray(describe(np.stack(reduced)), np.float32)
    return dict(zip(PATCH_KINDS, np.split(descriptors, len(PATCH_KINDS)), strict=True))


def write_descriptors(folder: Path, values_by_kind: Mapping[str, NDArray]) -> None:
    """Write the descriptors of a sequence as the benchmark reads them: FOLDER/ref.csv ..., one row per patch.

    Args:
        folder: of the sequence; created if missing.
        values_by_kind: each (N, D).
    """
    for kind, values in values_by_kind.items():
        write_atomically(folder / f"{kind}.csv", partial(np.savetxt, X=values, fmt="%.8g", delimiter=","))


def read_descriptors(folder: Path) -> dict[str, NDArray]:
    """Read the descriptors of a sequence from CSV files with commas or semicolons.

    Returns:
        By kind, each float32 (N, D).

    Raises:
        UserError: a file is missing or damaged, or the kinds differ in their number of rows or columns.
    """
    descriptors = {kind: _read_table(folder / f"{kind}.csv") for kind in PATCH_KINDS}
    check_counts(folder, descriptors)
    expected = descriptors["ref"].shape[1]
    for kind in PATCH_KINDS:
        columns = descriptors[kind].shape[1]
        if columns != expected:
            raise UserError(
                f"{folder} must have as many columns in {kind}.csv as in ref.csv ({expected}), got {columns}; write them again"
            )
    return descriptors


def _read_table(path: Path) -> NDArray:
    if not path.is_file():
        raise UserError(f"{path} is missing; write the descriptors of every kind ({', '.join(PATCH_KINDS[:3])}, ...)")
    try:
        with path.open() as file:
            delimiter = ";" if ";" in file.readline() else ","
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # about an empty file, which callers refuse
            values = np.loadtxt(path, np.float32, delimiter=delimiter, ndmin=2)
    except ValueError as error:
        raise UserError(f"{path} must be a table of numbers ({error}); write the descriptors again") from error
    if not np.isfinite(values).all():
        raise UserError(f"{path} contains nan or infinite values; write the descriptors again")
    return values


def find_task_file(root: Path, name: str, split: str) -> Path | None:
    """Find the file of a task in ROOT/tasks or ROOT.

    Args:
        root: of the benchmark.
        name: such as "retr_queries".
        split: such as "a".

    Returns:
        The path, or None if the file is in neither folder.
    """
    candidates = [folder / f"{name}_split-{split}.csv" for folder in (root / "tasks", root)]
    return next((path for path in candidates if path.is_file()), None)


def read_task(path: Path, names: Sequence[str]) -> NDArray:
    """Read a task file as whole numbers.

    Args:
        path: of the CSV file.
        names: of the sequences of the split; each name in the file becomes its index in this list.

    Returns:
        int64 (M, 6), twice (sequence, image, patch), for verification; or (M, 2), (sequence, patch), for retrieval.

    Raises:
        UserError: the file is damaged or names another sequence.
    """
    numbers = {name: str(number) for number, name in enumerate(names)}
    try:
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} must be a text file ({error}); download it from the benchmark again") from error
    invalid = f"{path} is not a task file of HPatches; download it from the benchmark"
    if len(rows) < 2 or len(rows[0]) not in (2, 6):
        raise UserError(invalid)
    header, *rows = rows
    sequence_columns = [column for column, title in enumerate(header) if title.startswith("s")]
    try:
        for row in rows:
            for column in sequence_columns:
                row[column] = numbers[row[column]]
        return np.array(rows, dtype=np.int64).reshape(-1, len(header))
    except KeyError as error:
        raise UserError(
            f"{path} names the sequence {error.args[0]}, which is not in its split; download the file from the benchmark"
        ) from error
    except (ValueError, IndexError, OverflowError) as error:
        raise UserError(invalid) from error


def check_task(path: Path, rows: NDArray, counts: Sequence[int]) -> None:
    """Check that a task names only images and patches that exist.

    Args:
        path: of the task file, named in the message.
        rows: (M, 6) or (M, 2), as `read_task` returns them.
        counts: the number of patches of each sequence.

    Raises:
        UserError: a row names an image or a patch that does not exist.

    Examples:
        >>> check_task(Path("retr_queries_split-a.csv"), np.array([[0, 3], [1, 3]]), counts=[4, 6])
    """
    # Rows of retrieval files have no image; 0, the reference, takes its place.
    sides = [rows[:, :3], rows[:, 3:]] if rows.shape[1] == 6 else [np.insert(rows, 1, 0, axis=1)]
    for sequences, images, patches in (side.T for side in sides):
        is_invalid = (images < 0) | (images >= IMAGES) | (patches < 0) | (patches >= np.asarray(counts)[sequences])
        if is_invalid.any():
            line = int(is_invalid.argmax()) + 2  # counted from 1, after the header
            raise UserError(
                f"{path} names a patch in line {line} that does not exist in its sequence; take both from the same release"
            )


def verification_pairs(counts: Sequence[int], pairs: int = PAIRS) -> tuple[NDArray, NDArray, NDArray]:
    """Draw the pairs of the verification task by the benchmark's published, seeded procedure.

    The benchmark uses NumPy's legacy generator with seed 42. It draws for each pair a sequence, two different patches of it
    and two of the first five images, then another sequence and patch for the negatives across sequences. A million pairs
    take about half a minute.

    Args:
        counts: the number of patches of each sequence of the split, in its published order.
        pairs: the number of positives, and of negatives of each sort.

    Returns:
        Positives, negatives within a sequence, and negatives across sequences, each (M, 6) as in `read_task`.

    Examples:
        >>> positives, within, across = verification_pairs([5, 40, 17], pairs=3)
        >>> positives.shape, bool((within[:, 0] == within[:, 3]).all())
        ((3, 6), True)
    """
    # The order of these draws is part of the procedure.
    legacy_rng = np.random.RandomState(SEED)
    sequences = legacy_rng.choice(len(counts), pairs)
    patches = draw_two(legacy_rng, [counts[sequence] for sequence in sequences])
    images = draw_two(legacy_rng, [IMAGES - 1] * pairs)
    others = legacy_rng.choice(len(counts), pairs)
    other_patches = np.array([legacy_rng.randint(counts[other]) for other in others])

    anchors = np.stack([sequences, images[:, 0], patches[:, 0]], 1)
    return (
        np.hstack([anchors, np.stack([sequences, images[:, 1], patches[:, 0]], 1)]),
        np.hstack([anchors, np.stack([sequences, images[:, 1], patches[:, 1]], 1)]),
        np.hstack([anchors, np.stack([others, images[:, 1], other_patches], 1)]),
    )


def draw_two(legacy_rng: np.random.RandomState, counts: Sequence[int]) -> NDArray:
    """Draw two different numbers below each count.

    The result equals that of `numpy.random.choice(count, 2, replace=False)` for each count.

    Returns:
        int64 (M, 2).

    Examples:
        >>> draw_two(np.random.RandomState(0), [2, 2]).sum(axis=1).tolist()  # always 0 and 1
        [1, 1]
    """
    # tolist: a slice would keep the whole permutation in memory
    return np.array([legacy_rng.permutation(count)[:2].tolist() for count in counts])
