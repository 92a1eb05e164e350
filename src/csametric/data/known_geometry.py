"""Pairs of photographs with known geometry: folders of sequences, and lists with intrinsics and relative pose."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csametric.data.listing import list_folders
from csametric.errors import UserError

SUFFIXES = (".ppm", ".png", ".jpg", ".pgm")
TARGETS = range(2, 7)


@dataclass(frozen=True, kw_only=True)
class PlanarPair:
    """Two photographs of a plane. homography: (3, 3), from the pixels of the first to those of the second."""

    sequence: str
    first: Path
    second: Path
    homography: NDArray


@dataclass(frozen=True, kw_only=True)
class PosedPair:
    """Two calibrated photographs. cameras: intrinsics (3, 3); pose: (4, 4), points of the first camera in the second's."""

    first: Path
    second: Path
    first_camera: NDArray
    second_camera: NDArray
    pose: NDArray


def read_sequences(root: Path) -> list[PlanarPair]:
    """The pairs 1-2 ... 1-6 of every folder with H_1_2 ... (or H1to2p ...), as HPatches' sequences and the Oxford set lie.

    Raises:
        UserError: no folder, no sequence in it, a homography or a photograph is missing.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; name the one that holds the sequences (i_*, v_*)")
    pairs = [pair for folder in list_folders(root) for pair in _read_sequence(folder)]
    if not pairs:
        raise UserError(f"{root} holds no sequence; each is a folder of 1.ppm ... 6.ppm and H_1_2 ... H_1_6")
    return pairs


def _read_sequence(folder: Path) -> list[PlanarPair]:
    pairs = []
    for target in TARGETS:
        found = [folder / name for name in (f"H_1_{target}", f"H1to{target}p", f"H1to{target}") if (folder / name).is_file()]
        if not found:
            continue
        photos = [_photo(folder, number) for number in (1, target)]
        pairs.append(PlanarPair(sequence=folder.name, first=photos[0], second=photos[1], homography=_read_matrix(found[0])))
    return pairs


def _photo(folder: Path, number: int) -> Path:
    places = [folder / f"{name}{suffix}" for name in (str(number), f"img{number}") for suffix in SUFFIXES]
    present = next((path for path in places if path.is_file()), None)
    if present is None:
        raise UserError(f"{folder} has a homography but no photograph {number} ({number}.ppm or img{number}.ppm); add it")
    return present


def _read_matrix(path: Path) -> NDArray:
    try:
        return np.array(path.read_text().split(), np.float64).reshape(3, 3)
    except ValueError as error:
        raise UserError(f"{path} is no matrix of 3 x 3 numbers; take it from the benchmark again") from error


def read_posed_pairs(path: Path) -> list[PosedPair]:
    """A text list, a pair a line: name0 name1 rot0 rot1 K0 (9) K1 (9) T_0to1 (16), with names beside the file.

    rot0 and rot1 are quarter turns that a viewer makes; the photographs lie as their intrinsics say, and stay so here.

    Raises:
        UserError: no such file, or a line of another form.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; write name0 name1 rot0 rot1 K0 K1 T_0to1 a line")
    pairs = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            values = np.array(words[4:], np.float64)
            cameras, pose = values[:18].reshape(2, 3, 3), values[18:].reshape(4, 4)
        except ValueError as error:
            raise UserError(
                f"{path} has {len(words)} words in line {number} instead of 38 (name0 name1 rot0 rot1 K0 K1 T_0to1); mend it"
            ) from error
        first, second = path.parent / words[0], path.parent / words[1]
        pairs.append(PosedPair(first=first, second=second, first_camera=cameras[0], second_camera=cameras[1], pose=pose))
    return pairs
