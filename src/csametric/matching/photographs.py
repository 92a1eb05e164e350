"""Describe and match photographs: image files in, matches in the pixels of those files out."""

import csv
import math
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from csametric.data.decoding import UnreadableImageError
from csametric.data.listing import SUFFIXES, Listing, list_images
from csametric.data.photo_patches import read_photo
from csametric.errors import UserError, wrong_path
from csametric.files import is_file, read_text
from csametric.matching.descriptors import Descriptor
from csametric.matching.geometry import MIN_INLIERS, Geometry, Model, estimate_geometry, inliers_by_chance
from csametric.matching.keypoints import DetectorSettings, LocalFrames, detect
from csametric.matching.matches import Matches, match_descriptors

MAX_SIDE = 2048
LONGEST_LINE = 10_000  # characters in a list of pairs
PLANAR_SHARE = 0.8  # homography inliers / fundamental inliers above which a scene is planar; COLMAP's max_H_inlier_ratio


@dataclass(frozen=True, kw_only=True)
class MatchSettings:
    """How photographs are matched.

    Raises:
        UserError: a value is out of range.

    Examples:
        >>> settings = MatchSettings(model="fundamental", ratio=0.9)
        >>> settings.max_side, settings.detector.limit
        (2048, 4096)
    """

    detector: DetectorSettings = field(default_factory=DetectorSettings)
    max_side: int = MAX_SIDE  # pixels, at least 64; larger photographs are reduced to it
    mutual: bool = True  # keep a match only if each keypoint is the other's nearest
    ratio: float | None = 0.95  # in (0, 1], nearest over second nearest distance; None keeps every match
    model: Model | Literal["auto"] = "homography"  # the geometry to fit; "auto" chooses for each pair as COLMAP does
    threshold: float = 2.0  # pixels of the reduced photographs, the largest noise of an inlier
    against_chance: bool = True  # drop a geometry that unrelated photographs could have as well

    def __post_init__(self) -> None:
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise UserError(f"ratio must be in (0, 1], got {self.ratio}; use for example 0.9")
        if self.max_side < 64:
            raise UserError(f"max_side must be at least 64 pixels, got {self.max_side}; use for example {MAX_SIDE}")
        if self.detector.limit < 8:
            raise UserError(f"detector.limit must be at least 8 keypoints, got {self.detector.limit}; use for example 4096")
        if not 0 < self.threshold < math.inf:
            raise UserError(f"threshold must be a number of pixels above 0, got {self.threshold}; use for example 2")


@dataclass(frozen=True, kw_only=True)
class DescribedPhoto:
    """A photograph with its keypoints and their descriptors."""

    path: Path
    image: NDArray  # grey uint8 (H, W), reduced
    scale: tuple[float, float]  # pixels of the file per pixel of `image`, in x and y
    frames: LocalFrames  # K keypoints, in pixels of `image`
    descriptors: NDArray  # float32 (K, D) of unit length

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the file, pixels."""
        height, width = self.image.shape
        return round(self.scale[0] * width), round(self.scale[1] * height)

    @property
    def points(self) -> NDArray:
        """The keypoints in the pixels of the file, (K, 2); the centre of the first pixel is (0, 0)."""
        return (self.frames.centres + 0.5) * np.array(self.scale) - 0.5


@dataclass(frozen=True, kw_only=True)
class MatchedPair:
    """Two photographs, their matches, and the geometry fitted to them."""

    first: DescribedPhoto
    second: DescribedPhoto
    matches: Matches  # R matches
    geometry: Geometry  # in pixels of the files
    model: Model  # what `geometry.matrix` is

    @property
    def from_points(self) -> NDArray:
        """The matched points in the first photograph, x and y in pixels of the file, (R, 2)."""
        return self.first.points[self.matches.pairs[:, 0]]

    @property
    def to_points(self) -> NDArray:
        """The matched points in the second photograph, x and y in pixels of the file, (R, 2)."""
        return self.second.points[self.matches.pairs[:, 1]]

    def as_json(self) -> dict[str, Any]:
        """The pair as a dictionary for JSON: files, geometry, and for each match its points, distance and inlier flag."""
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
                {"from": a.round(2).tolist(), "to": b.round(2).tolist(), "distance": round(float(d), 4), "inlier": bool(inlier)}
                for a, b, d, inlier in rows
            ],
        }


def describe_photo(path: Path, descriptor: Descriptor, settings: MatchSettings) -> DescribedPhoto:
    """Describe the keypoints of a photograph by one descriptor; see `describe_photos`."""
    return describe_photos(path, [descriptor], settings)[0]


def describe_photos(path: Path, descriptors: Sequence[Descriptor], settings: MatchSettings) -> list[DescribedPhoto]:
    """Read a photograph, detect its keypoints, and describe the same keypoints by each descriptor.

    Raises:
        UserError: the file does not exist, cannot be decoded, or no keypoint is found in it.
    """
    image, scale = _read(path, settings.max_side)
    frames = detect(image, settings.detector)
    if not len(frames.centres):
        raise UserError(f"no keypoints found in {path} (too uniform or too blurred); take a photograph with more texture")
    return [
        DescribedPhoto(
            path=path, image=image, scale=scale, frames=frames, descriptors=descriptor.describe_keypoints(image, frames)
        )
        for descriptor in descriptors
    ]


def _read(path: Path, max_side: int) -> tuple[NDArray, tuple[float, float]]:
    if not is_file(path):
        raise UserError(f"{wrong_path('photograph', path)}; correct the path")
    try:
        image, (width, height) = read_photo(path, max_side)
    except UnreadableImageError as error:
        raise UserError(f"{path} cannot be matched: it {error.problem}") from error
    return image, (width / image.shape[1], height / image.shape[0])


def match_photos(first: DescribedPhoto, second: DescribedPhoto, settings: MatchSettings) -> MatchedPair:
    """Match two described photographs and estimate their geometry."""
    matches = match_descriptors(first.descriptors, second.descriptors, settings.mutual, settings.ratio)
    a, b = (photo.frames.centres[side] for photo, side in zip((first, second), matches.pairs.T, strict=True))
    if settings.model == "auto":
        geometry, model = _choose_geometry(a, b, second.image.shape, settings)
    else:
        geometry, model = _fit_geometry(a, b, second.image.shape, settings, settings.model), settings.model
    if geometry.matrix is not None:
        matrix = in_file_pixels(geometry.matrix, first.scale, second.scale, model)
        geometry = Geometry(matrix=matrix, inliers=geometry.inliers)
    return MatchedPair(first=first, second=second, matches=matches, geometry=geometry, model=model)


def _choose_geometry(
    from_R2: NDArray, to_R2: NDArray, shape: tuple[int, ...], settings: MatchSettings
) -> tuple[Geometry, Model]:
    """A homography if it has almost as many inliers as the fundamental matrix, as COLMAP decides; else the latter."""
    homography, fundamental = (_fit_geometry(from_R2, to_R2, shape, settings, model) for model in ("homography", "fundamental"))
    if homography.matrix is not None and homography.inliers.sum() > PLANAR_SHARE * fundamental.inliers.sum():
        return homography, "homography"
    return fundamental, "fundamental"


def _fit_geometry(from_R2: NDArray, to_R2: NDArray, shape: tuple[int, ...], settings: MatchSettings, model: Model) -> Geometry:
    geometry = estimate_geometry(from_R2, to_R2, model, settings.threshold)
    most_by_chance = inliers_by_chance(len(from_R2), model, settings.threshold, *shape)
    if settings.against_chance and geometry.inliers.sum() <= most_by_chance:
        return Geometry(matrix=None, inliers=np.zeros(len(from_R2), bool))
    return geometry


def in_file_pixels(
    matrix: NDArray, first_scale: tuple[float, float], second_scale: tuple[float, float], model: Model
) -> NDArray:
    """Convert a homography or a fundamental matrix, (3, 3), from pixels of the reduced photographs to pixels of the files.

    A homography is normalised to a last element of 1, a fundamental matrix to a Frobenius norm of 1.

    Args:
        first_scale, second_scale: pixels of the file per pixel of the reduced photograph, in x and y.
    """
    first, second = (_enlargement(scale) for scale in (first_scale, second_scale))
    if model == "homography":
        enlarged = second @ matrix @ np.linalg.inv(first)
        return enlarged / enlarged[2, 2]
    enlarged = np.linalg.inv(second).T @ matrix @ np.linalg.inv(first)
    return enlarged / np.linalg.norm(enlarged)


def _enlargement(scale: tuple[float, float]) -> NDArray:
    """The affine map, (3, 3), from reduced to file pixels; whole numbers are centres of pixels in both."""
    x, y = scale
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def why_no_geometry(pair: MatchedPair) -> str:
    """Explain why a pair was left without a geometry and what to try; empty if it has one."""
    if pair.geometry.matrix is not None:
        return ""
    return (
        f"of {len(pair.matches.pairs)} matches too few are inliers of one {pair.model} to rule out chance "
        f"(at least {MIN_INLIERS} are needed); try upright keypoints if both photographs have the same orientation, else a "
        "ratio of 1 or more keypoints"
    )


def find_photographs(folder: Path, excluded: Path | None = None) -> Listing:
    """List the image files inside a folder and the folders below it.

    Args:
        folder: where to search.
        excluded: a folder below it that is left out, for results.

    Raises:
        UserError: the folder does not exist or holds fewer than two images.
    """
    listing = list_images(folder, excluded=excluded)
    if len(listing.images) < 2:
        suffixes = ", ".join(sorted(SUFFIXES))
        raise UserError(f"need at least 2 photographs in {folder}, got {len(listing.images)}; add some ({suffixes})")
    return listing


def read_pairs(path: Path, root: Path | None = None) -> list[tuple[Path, Path]]:
    """Read pairs of photographs from a text file with two names per line; a pair listed twice is returned once.

    Names with spaces or commas are quoted, or a comma separates the two. Lines that start with # are comments.

    Args:
        path: the text file.
        root: the folder that relative names start from; by default that of the file.

    Raises:
        UserError: the file does not exist, is not UTF-8, lists no pair, or a line does not hold exactly two names.
    """
    if not path.is_file():
        raise UserError(f"{wrong_path('list of pairs', path)}; write one with two photographs per line")
    folder, pairs = root or path.parent, []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if len(line) > LONGEST_LINE:
            raise UserError(f"{path}, line {number}: {len(line):,} characters are too many for two names; correct the line")
        names = _names(line)
        if not names or names[0].startswith("#"):
            continue
        if len(names) != 2:
            raise UserError(f"{path}, line {number}: expected two names, got {len(names)}; quote names that contain spaces")
        pairs.append((folder / names[0], folder / names[1]))
    if not pairs:
        raise UserError(f"{path} lists no pairs; write two photographs per line")
    return once(pairs)


def _names(line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError:  # an unpaired quotation mark is part of a name
        words = line.split()
    if "," not in line or (len(words) == 2 and _is_quoted(line) and not words[0].endswith(",")):
        return words
    (fields,) = csv.reader([line], skipinitialspace=True)
    return [field.strip() for field in fields]


def _is_quoted(line: str) -> bool:
    return line.lstrip()[:1] in ("'", '"') or line.rstrip()[-1:] in ("'", '"')


def once(pairs: Sequence[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    """Drop repeated pairs; (a, b) and (b, a) are the same pair, and the first one is kept.

    Examples:
        >>> once([(Path("a"), Path("b")), (Path("b"), Path("a"))]) == [(Path("a"), Path("b"))]
        True
    """
    return list({frozenset(pair): pair for pair in reversed(pairs)}.values())[::-1]


def match_many(
    pairs: Sequence[tuple[Path, Path]], descriptor: Descriptor, settings: MatchSettings, skipped: dict[Path, str] | None = None
) -> Iterator[MatchedPair]:
    """Match each pair, in order; every photograph is described once and dropped after its last pair.

    Args:
        skipped: filled with each photograph that cannot be described and the reason; its pairs are left out. If None, the
            first such photograph raises.

    Raises:
        UserError: a photograph cannot be described (see `describe_photos`) and `skipped` is None.
    """
    described: dict[Path, DescribedPhoto] = {}
    problems: dict[Path, str] = {} if skipped is None else skipped
    pairs_left = Counter(path for pair in pairs for path in set(pair))
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
            pairs_left[path] -= 1
            if not pairs_left[path]:
                described.pop(path, None)


def all_pairs(photos: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Every pair of the photographs once, in order."""
    return list(combinations(photos, 2))
