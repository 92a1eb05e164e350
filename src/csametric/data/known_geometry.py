"""Pairs of photographs with known geometry: sequences with homographies, and lists with intrinsics and relative poses."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csametric.data.listing import list_folders
from csametric.errors import UserError, wrong_path
from csametric.files import read_text

SUFFIXES = (".ppm", ".png", ".jpg", ".pgm")
TARGETS = range(2, 7)  # photographs that a homography relates to photograph 1
PAIR_COLUMNS = "name0 name1 rot0 rot1 K0 K1 T_0to1"
PAIR_WORDS = 4 + 9 + 9 + 16


@dataclass(frozen=True, kw_only=True)
class PlanarPair:
    """Two photographs of a plane."""

    sequence: str
    first: Path
    second: Path
    homography: NDArray  # (3, 3), from pixels of the first photograph to pixels of the second


@dataclass(frozen=True, kw_only=True)
class PosedPair:
    """Two calibrated photographs."""

    first: Path
    second: Path
    first_camera: NDArray  # (3, 3), intrinsics
    second_camera: NDArray  # (3, 3), intrinsics
    pose: NDArray  # (4, 4), from coordinates of the first camera to those of the second


def read_sequences(root: Path) -> list[PlanarPair]:
    """Read the pairs 1-2 ... 1-6 of every sequence in a folder.

    Args:
        root: holds one folder per sequence, with 1.ppm ... 6.ppm and H_1_2 ... H_1_6 (HPatches) or img1.ppm ... and
            H1to2p ... (Oxford). A target without a homography is left out.

    Raises:
        UserError: the folder does not exist or holds no sequence, a homography is damaged, or a photograph is missing.
    """
    if not root.is_dir():
        raise UserError(f"{wrong_path('folder', root)}; give the one that holds the sequences (i_*, v_*)")
    pairs = [pair for folder in list_folders(root) for pair in _read_sequence(folder)]
    if not pairs:
        raise UserError(f"{root} holds no sequence; put folders with 1.ppm ... 6.ppm and H_1_2 ... H_1_6 there")
    return pairs


def _read_sequence(folder: Path) -> list[PlanarPair]:
    pairs = []
    for target in TARGETS:
        candidates = [folder / name for name in (f"H_1_{target}", f"H1to{target}p", f"H1to{target}")]
        homography = next((path for path in candidates if path.is_file()), None)
        if homography is not None:
            first, second = _find_photo(folder, 1), _find_photo(folder, target)
            matrix = _read_matrix(homography)
            pairs.append(PlanarPair(sequence=folder.name, first=first, second=second, homography=matrix))
    return pairs


def _find_photo(folder: Path, number: int) -> Path:
    candidates = [folder / f"{name}{suffix}" for name in (str(number), f"img{number}") for suffix in SUFFIXES]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise UserError(f"{folder} has homographies, but photograph {number} is missing; add {number}.ppm or img{number}.ppm")
    return path


def _read_matrix(path: Path) -> NDArray:
    try:
        matrix = np.array(read_text(path).split(), np.float64).reshape(3, 3)
    except ValueError as error:
        raise UserError(f"{path} must hold 3 x 3 numbers ({error}); download it from the benchmark again") from error
    if not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix) < 3:
        raise UserError(f"{path} must hold an invertible matrix; download it from the benchmark again")
    return matrix


def read_posed_pairs(path: Path) -> list[PosedPair]:
    """Read a text list of calibrated pairs.

    Args:
        path: one line per pair, name0 name1 rot0 rot1 K0 (9 numbers) K1 (9) T_0to1 (16), with names relative to the file.
            rot0 and rot1 are quarter turns for display; they are ignored, because the intrinsics describe the photographs
            as stored. Empty lines and lines that begin with # are skipped.

    Raises:
        UserError: the file does not exist, or a line has another form.
    """
    if not path.is_file():
        raise UserError(f"{wrong_path('file', path)}; write one with one line per pair: {PAIR_COLUMNS}")
    lines = enumerate(read_text(path).splitlines(), 1)
    pairs = [_parse_posed_pair(path, number, line) for number, line in lines if line.strip() and not _is_comment(line)]
    if not pairs:
        raise UserError(f"{path} has no pairs; write one line per pair: {PAIR_COLUMNS}")
    return pairs


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _parse_posed_pair(path: Path, number: int, line: str) -> PosedPair:
    words = line.split()
    try:
        values = np.array(words[4:], np.float64)
        cameras, pose = values[:18].reshape(2, 3, 3), values[18:].reshape(4, 4)
        if not np.isfinite(values).all():
            raise ValueError("some numbers are NaN or infinite")
    except ValueError as error:
        raise UserError(
            f"{path} line {number} must have {PAIR_WORDS} words ({PAIR_COLUMNS}), got {len(words)} ({error}); correct the line"
        ) from error
    return PosedPair(
        first=path.parent / words[0],
        second=path.parent / words[1],
        first_camera=cameras[0],
        second_camera=cameras[1],
        pose=pose,
    )
