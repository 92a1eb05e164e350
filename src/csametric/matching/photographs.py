"""Photographs described and matched: files in, matches in the pixels of the files out."""

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csametric.data.decoding import UnreadableImageError
from csametric.data.listing import SUFFIXES, list_images
from csametric.data.photo_patches import read_photo
from csametric.errors import UserError
from csametric.files import read_text
from csametric.matching.descriptors import Descriptor
from csametric.matching.geometry import LEAST_AGREEING, Geometry, Model, agreeing_by_chance, estimate_geometry
from csametric.matching.keypoints import DetectorSettings, LocalFrames, detect
from csametric.matching.matches import Matches, match_descriptors

MAX_SIDE = 2048


@dataclass(frozen=True, kw_only=True)
class MatchSettings:
    """How photographs are matched.

    max_side: larger photographs are reduced to it, pixels. mutual, ratio: as `matches.match_descriptors`. model, threshold:
    as `geometry.estimate_geometry`, the threshold in pixels of the reduced photographs. against_chance: drop a geometry that
    unrelated photographs could have as well.
    """

    detector: DetectorSettings = field(default_factory=DetectorSettings)
    max_side: int = MAX_SIDE
    mutual: bool = True
    ratio: float | None = 0.95
    model: Model = "homography"
    threshold: float = 2.0
    against_chance: bool = True

    def __post_init__(self) -> None:
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise UserError(f"a ratio of {self.ratio} is no share; use one above 0 and up to 1, for example 0.9")
        if self.max_side < 64 or self.detector.limit < 8:
            raise UserError("a side below 64 pixels or fewer than 8 keypoints cannot be matched; use more")
        if not 0 < self.threshold < math.inf:
            raise UserError(f"a threshold of {self.threshold} pixels lets no match agree; use one above 0, for example 2")


@dataclass(frozen=True, kw_only=True)
class DescribedPhoto:
    """A photograph with its keypoints.

    image: grey uint8 (H, W), reduced. scale: pixels of the file over its own, in x and y. frames: in its own pixels.
    """

    path: Path
    image: NDArray
    scale: tuple[float, float]
    frames: LocalFrames
    descriptors: NDArray

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the file."""
        height, width = self.image.shape
        return round(self.scale[0] * width), round(self.scale[1] * height)

    @property
    def points(self) -> NDArray:
        """The keypoints in the pixels of the file, (K, 2); the centre of the first pixel is (0, 0)."""
        return (self.frames.centres + 0.5) * np.array(self.scale) - 0.5


@dataclass(frozen=True, kw_only=True)
class MatchedPair:
    """Two photographs, their matches, and the geometry that many of them agree on, in the pixels of the files."""

    first: DescribedPhoto
    second: DescribedPhoto
    matches: Matches
    geometry: Geometry
    model: Model

    @property
    def from_points(self) -> NDArray:
        """Of the matches in the first photograph, (R, 2)."""
        return self.first.points[self.matches.pairs[:, 0]]

    @property
    def to_points(self) -> NDArray:
        """Of the matches in the second photograph, (R, 2)."""
        return self.second.points[self.matches.pairs[:, 1]]

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        matrix = self.geometry.matrix
        rows = zip(self.from_points, self.to_points, self.matches.distances, self.geometry.inliers, strict=True)
        return {
            "first": str(self.first.path),
            "second": str(self.second.path),
            "keypoints": [len(self.first.points), len(self.second.points)],
            "model": self.model,
            "matrix": None if matrix is None else matrix.tolist(),
            "inliers": int(self.geometry.inliers.sum()),
            "matches": [
                {"from": a.round(2).tolist(), "to": b.round(2).tolist(), "distance": round(float(d), 4), "inlier": bool(agrees)}
                for a, b, d, agrees in rows
            ],
        }


def describe_photo(path: Path, descriptor: Descriptor, settings: MatchSettings) -> DescribedPhoto:
    """As `describe_photos`, with one descriptor."""
    return describe_photos(path, [descriptor], settings)[0]


def describe_photos(path: Path, descriptors: Sequence[Descriptor], settings: MatchSettings) -> list[DescribedPhoto]:
    """Read, detect, and describe the same keypoints by each descriptor.

    Raises:
        UserError: the file is no photograph, or has no keypoints.
    """
    image, scale = _read(path, settings.max_side)
    frames = detect(image, settings.detector)
    if not len(frames.centres):
        raise UserError(f"{path} has no keypoints: it is too even or too blurred; take a photograph with more texture")
    return [
        DescribedPhoto(path=path, image=image, scale=scale, frames=frames, descriptors=each.of_keypoints(image, frames))
        for each in descriptors
    ]


def _read(path: Path, max_side: int) -> tuple[NDArray, tuple[float, float]]:
    if not path.is_file():
        raise UserError(f"there is no file {path}; name a photograph")
    try:
        image, (width, height) = read_photo(path, max_side)
    except UnreadableImageError as error:
        raise UserError(f"{path} cannot be matched: it {error.problem}") from error
    return image, (width / image.shape[1], height / image.shape[0])


def match_photos(first: DescribedPhoto, second: DescribedPhoto, settings: MatchSettings) -> MatchedPair:
    """Match two described photographs and find the geometry their matches agree on."""
    matches = match_descriptors(first.descriptors, second.descriptors, settings.mutual, settings.ratio)
    a, b = (photo.frames.centres[side] for photo, side in zip((first, second), matches.pairs.T, strict=True))
    geometry = estimate_geometry(a, b, settings.model, settings.threshold)
    chance = agreeing_by_chance(len(a), settings.model, settings.threshold, *second.image.shape)
    if settings.against_chance and geometry.inliers.sum() <= chance:
        geometry = Geometry(matrix=None, inliers=np.zeros(len(a), bool))
    if geometry.matrix is not None:
        matrix = in_file_pixels(geometry.matrix, first.scale, second.scale, settings.model)
        geometry = Geometry(matrix=matrix, inliers=geometry.inliers)
    return MatchedPair(first=first, second=second, matches=matches, geometry=geometry, model=settings.model)


def in_file_pixels(
    matrix: NDArray, first_scale: tuple[float, float], second_scale: tuple[float, float], model: Model
) -> NDArray:
    """A homography or a fundamental matrix of reduced photographs for the files they were made of, (3, 3)."""
    first, second = (_enlarging(scale) for scale in (first_scale, second_scale))
    if model == "homography":
        enlarged = second @ matrix @ np.linalg.inv(first)
        return enlarged / enlarged[2, 2]
    enlarged = np.linalg.inv(second).T @ matrix @ np.linalg.inv(first)
    return enlarged / np.linalg.norm(enlarged)


def _enlarging(scale: tuple[float, float]) -> NDArray:
    """Pixels of the reduced photograph to those of the file, where centres of pixels are whole numbers."""
    x, y = scale
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def why_no_geometry(pair: MatchedPair) -> str:
    """What to tell a user about a pair without a geometry, with advice; "" where there is one."""
    if pair.geometry.matrix is not None:
        return ""
    return (
        f"{len(pair.matches.pairs)} matches, of which too few agree on one {pair.model} to be more than chance (at least "
        f"{LEAST_AGREEING}); photographs that are not turned match better with --upright, others with --ratio 1 or more "
        "--keypoints"
    )


def find_photographs(folder: Path) -> list[Path]:
    """The photographs of a folder, sorted.

    Raises:
        UserError: fewer than two.
    """
    photos = list_images(folder, recursive=False).images
    if len(photos) < 2:
        kinds = ", ".join(sorted(SUFFIXES))
        raise UserError(f"{folder} holds {len(photos)} photographs, two are the least; add some ({kinds})")
    return photos


def read_pairs(path: Path) -> list[tuple[Path, Path]]:
    """Pairs of photographs from a text file: two names a line, beside the file or whole paths, each pair once.

    Names with spaces stand in quotes, or with a comma between both.

    Raises:
        UserError: the file is missing or no text, names no pair, or a line has not two names.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; write one with two photographs a line")
    pairs = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        names = _names(line)
        if not names or names[0].startswith("#"):
            continue
        if len(names) != 2:
            raise UserError(f"{path} has {len(names)} names in line {number}; write two, those with spaces in quotes")
        pairs.append((path.parent / names[0], path.parent / names[1]))
    if not pairs:
        raise UserError(f"{path} names no photographs; write two a line")
    return once(pairs)


def _names(line: str) -> list[str]:
    if "," in line:
        return [name.strip() for name in line.split(",")]
    try:
        return shlex.split(line)
    except ValueError:  # a quotation mark alone is part of a name
        return line.split()


def once(pairs: Sequence[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    """Each pair once, whichever way round."""
    return list({frozenset(pair): pair for pair in reversed(pairs)}.values())[::-1]


def match_many(
    pairs: Sequence[tuple[Path, Path]], descriptor: Descriptor, settings: MatchSettings, skipped: dict[Path, str] | None = None
) -> Iterator[MatchedPair]:
    """Each pair matched, in order; every photograph is described once.

    Args:
        skipped: gets each photograph that cannot be matched with the reason, and its pairs are left out; without it the first
            such photograph raises.

    Raises:
        UserError: as `describe_photos`.
    """
    described: dict[Path, DescribedPhoto] = {}
    problems: dict[Path, str] = {} if skipped is None else skipped
    left = Counter(path for pair in pairs for path in set(pair))
    for pair in pairs:
        for path in pair:
            if path in described or path in problems:
                continue
            try:
                described[path] = describe_photo(path, descriptor, settings)
            except UserError as error:
                if skipped is None:
                    raise
                problems[path] = str(error)
        if all(path in described for path in pair):
            yield match_photos(described[pair[0]], described[pair[1]], settings)
        for path in set(pair):
            left[path] -= 1
            if not left[path]:
                described.pop(path, None)


def all_pairs(photos: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Every pair of them."""
    return list(combinations(photos, 2))
