"""Patch pairs from ordinary photographs without labels: every keypoint is an identity, and random views are its images.

Patches are cached on disk under a key of the settings and the files. Only a few photographs are in memory at a time, so a
thousand need no more memory than a few.

Legend: K keypoints, V views, S = 32 side of a patch in pixels.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from csametric.data.cache import Progress, cache_key, cached_folder, map_cached
from csametric.data.decoding import DecodedPhoto, UnreadableImageError, decode_grey
from csametric.data.keypoints import CONTRAST_THRESHOLD, SEPARATION, SUPPORT, Keypoints, detect_keypoints
from csametric.data.listing import SUFFIXES, list_images
from csametric.data.patch_views import LEVELS, PATCH_SIDE, pyramid, random_views, sample_patches
from csametric.errors import UserError, printable, wrong_path
from csametric.files import sync_file

BUNDLED = "bundled"
BUNDLED_TRAIN = (
    "astronaut.png",
    "brick.png",
    "cell.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "retina.jpg",
    "rocket.jpg",
)
BUNDLED_HELD_OUT = ("camera.png", "chelsea.png", "coffee.png", "motorcycle_left.png")
HELD_OUT_COLUMNS = ("upright", *LEVELS)  # what is cached of each held-out keypoint: the upright patch, a view per level
TRAIN_FILE, HELD_OUT_FILE, SUMMARY_FILE = "train.u8", "held_out.u8", "summary.json"
NAMED = 20  # skipped files named when a summary is printed; the cache's summary.json has them all
_FORMAT = 1  # of the cache; a change of the cached content needs a new number
_WORKERS = 2


Detection = tuple[NDArray, Keypoints]  # a photograph, uint8 (H, W), and its keypoints


@dataclass(frozen=True, kw_only=True)
class PhotoSettings:
    """Which photographs to use, and how to draw patches from them.

    Raises:
        UserError: a value is out of range.

    Examples:
        >>> PhotoSettings(folder="/home/me/holiday").without_paths().folder
        'holiday'
    """

    folder: str = BUNDLED  # of photographs, or "bundled" for those inside the scikit-image wheel
    keypoints: int = 20_000  # training keypoints aimed at in total, shared evenly by the photographs
    views: int = 16  # V, cached of each training keypoint
    level: Literal["easy", "hard", "tough"] = "tough"  # how far training views differ from the upright patch
    support: float = SUPPORT  # side of the support region over the keypoint's size
    contrast_threshold: float = CONTRAST_THRESHOLD  # as for `detect_keypoints`
    separation: float = SEPARATION  # as for `detect_keypoints`
    max_side: int = 1600  # pixels, larger photographs are reduced to it
    held_out_every: int = 5  # n: the first of every n usable photographs in a folder is held out
    held_out_keypoints: int = 1000  # maximum per held-out photograph
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.folder:
            raise UserError("data.folder is empty; name a folder of photographs")
        if self.seed < 0:
            raise UserError(f"data.seed={self.seed} is negative; use 0 or more")
        minima = {"keypoints": 2, "views": 2, "held_out_keypoints": 2, "held_out_every": 2, "max_side": PATCH_SIDE}
        for name, minimum in minima.items():
            if getattr(self, name) < minimum:
                raise UserError(f"data.{name}={getattr(self, name)} is too small; use {minimum} or more")
        for name in ("support", "contrast_threshold", "separation"):
            if getattr(self, name) <= 0:
                raise UserError(f"data.{name}={getattr(self, name)} is not positive; use a number above 0")

    def without_paths(self) -> Self:
        """Return a copy with the name of the folder alone, to compare settings across machines."""
        return replace(self, folder=Path(self.folder).name or "photographs")


@dataclass(frozen=True, kw_only=True)
class PhotoSummary:
    """What a cache was built from."""

    train: dict[str, int]  # number of keypoints of each training photograph, by path in the folder
    held_out: dict[str, int]  # number of keypoints of each held-out photograph, by path in the folder
    skipped: dict[str, str]  # why a file was skipped, by path in the folder
    patches: int = 0  # cached in total
    seconds: float = 0.0  # time to build the cache

    def __str__(self) -> str:
        text = (
            f"{sum(self.train.values()):,} keypoints of {len(self.train)} photographs to train on, "
            f"{sum(self.held_out.values()):,} of {len(self.held_out)} held out"
        )
        if self.skipped:
            reasons = [printable(f"{name}: {reason}") for name, reason in self.skipped.items()]
            shown = reasons[:NAMED]
            if len(reasons) > NAMED:
                shown.append(f"{len(reasons) - NAMED} more")
            text += f"; {len(reasons)} skipped ({'; '.join(shown)})"
        return text


@dataclass(frozen=True, kw_only=True)
class PhotoPatches:
    """The patches of a set of photographs, opened from the cache."""

    train: NDArray  # uint8 (K, V, 32, 32), grey, memory-mapped
    held_out: NDArray  # uint8 (K', 4, 32, 32), grey, memory-mapped; the columns are `HELD_OUT_COLUMNS`
    held_out_photos: NDArray  # (K',), index of the photograph of each held-out keypoint
    summary: PhotoSummary

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of the held-out views, in the order of their columns."""
        return HELD_OUT_COLUMNS[1:]


def photo_root(settings: PhotoSettings) -> Path:
    """Return the folder that holds the photographs.

    Examples:
        >>> photo_root(PhotoSettings(folder="holiday")).name
        'holiday'
    """
    return Path(str(files("skimage") / "data")) if settings.folder == BUNDLED else Path(settings.folder)


def find_photos(settings: PhotoSettings) -> tuple[list[Path], list[Path]]:
    """List the image files and the other visible files of the folder.

    Returns:
        Images, then other files, each sorted by path; bundled photographs are in the order of their list.

    Raises:
        UserError: the folder does not exist or has fewer than two image files.

    Examples:
        >>> images, others = find_photos(PhotoSettings(folder="bundled"))
        >>> images[0].name, others
        ('astronaut.png', [])
    """
    folder = photo_root(settings)
    if settings.folder == BUNDLED:
        return [folder / name for name in (*BUNDLED_TRAIN, *BUNDLED_HELD_OUT)], []
    if not folder.is_dir():
        raise UserError(f"{wrong_path('folder', folder)}; give one that holds photographs")
    photos, others, _ = list_images(folder)
    if len(photos) < 2:
        raise UserError(
            f"{folder} needs at least 2 photographs, one to train on and one to hold out, got {len(photos)}; add some "
            f"({', '.join(sorted(SUFFIXES))})"
        )
    return photos, others


def read_photo(path: Path, max_side: int) -> DecodedPhoto:
    """Read a photograph as grey values, ignoring its EXIF orientation.

    Args:
        path: of the file.
        max_side: larger photographs are reduced until neither side is longer, pixels.

    Raises:
        UserError: the file does not exist.
        UnreadableImageError: the file cannot be decoded, or the photograph is smaller than a patch.
    """
    photo = decode_grey(path, max_side)
    if min(photo.pixels.shape) < PATCH_SIDE:
        raise UnreadableImageError(path, f"is smaller than {PATCH_SIDE} pixels; use a larger image", "size")
    return photo


def open_photo_patches(settings: PhotoSettings, cache: Path | None = None, progress: Progress | None = None) -> PhotoPatches:
    """Open the patches of a set of photographs, building and caching them first if needed.

    Args:
        settings: which photographs, and how to draw patches.
        cache: the folder of the cache; by default $CSAMETRIC_CACHE or ~/.cache/csametric.
        progress: called with (photographs done, photographs in total).

    Raises:
        UserError: the folder does not exist or has too few usable photographs, or the disk is full.
    """
    photos, others = find_photos(settings)

    def write(temporary: Path) -> None:
        summary = _write(settings, photos, others, temporary, progress or (lambda done, total: None))
        with (temporary / SUMMARY_FILE).open("w") as out:
            json.dump(asdict(summary), out, indent=1)
            sync_file(out)

    cached_settings = [_FORMAT, asdict(settings), {name: asdict(level) for name, level in LEVELS.items()}]
    return _open(cached_folder(f"photos-{cache_key(cached_settings, [*photos, *others])}", write, cache), settings.views)


def check_held_out(patches: PhotoPatches) -> None:
    """Check that a held-out photograph has enough keypoints to measure how well they are told apart.

    Raises:
        UserError: no held-out photograph has two keypoints.
    """
    most = max(patches.summary.held_out.values())
    if most < 2:
        raise UserError(
            f"a held-out photograph needs at least 2 keypoints, got at most {most}; add larger or more textured photographs"
        )


def _write(settings: PhotoSettings, photos: list[Path], others: list[Path], folder: Path, progress: Progress) -> PhotoSummary:
    """Write the patch files of a cache."""
    started, root = time.monotonic(), photo_root(settings)
    skipped = {path.relative_to(root).as_posix(): "not named like an image" for path in others}
    train_counts: dict[str, int] = {}
    held_out_counts: dict[str, int] = {}
    with (folder / TRAIN_FILE).open("wb") as train, (folder / HELD_OUT_FILE).open("wb") as held_out:
        for done, (photo, is_held_out, patches) in enumerate(_cut_photos(photos, settings), 1):
            name = photo.relative_to(root).as_posix()
            if isinstance(patches, str):
                skipped[name] = patches
            elif is_held_out:
                held_out_counts[name] = len(patches)
                held_out.write(patches.data)
            else:
                train_counts[name] = len(patches)
                train.write(patches.data)
            progress(done, len(photos))
        sync_file(train)
        sync_file(held_out)
    if not train_counts or not held_out_counts:
        reason = next(reversed(skipped.values()), "none was skipped")
        raise UserError(
            f"at least 2 photographs need usable keypoints, one to train on and one to hold out, got "
            f"{len(train_counts) + len(held_out_counts)} of {len(photos)} ({reason}); add larger or more textured ones"
        )
    return PhotoSummary(
        train=train_counts,
        held_out=held_out_counts,
        skipped=skipped,
        patches=sum(train_counts.values()) * settings.views + sum(held_out_counts.values()) * len(HELD_OUT_COLUMNS),
        seconds=time.monotonic() - started,
    )


def _cut_photos(photos: list[Path], settings: PhotoSettings) -> Iterator[tuple[Path, bool, NDArray | str]]:
    """Yield each photograph in order, whether it is held out, and its patches or why it was skipped.

    A photograph's place in the split depends on the usable ones before it, so keypoints are detected first and an unusable
    file never takes a place. A few photographs are in memory at a time.
    """
    held_out_count = len(BUNDLED_HELD_OUT) if settings.folder == BUNDLED else -(-len(photos) // settings.held_out_every)
    share = -(-settings.keypoints // max(1, len(photos) - held_out_count))
    detect = partial(_detect, settings=settings, limit=max(share, settings.held_out_keypoints))
    cut = partial(_cut, settings=settings, share=share)
    usable = 0
    with ThreadPoolExecutor(_WORKERS) as pool:
        for start in range(0, len(photos), 2 * _WORKERS):
            chunk = photos[start : start + 2 * _WORKERS]
            detections = list(pool.map(detect, chunk))
            is_held_out = []
            for photo, detection in zip(chunk, detections, strict=True):
                is_held_out.append(_is_held_out(photo, usable, settings))
                if not isinstance(detection, str):
                    usable += 1
            patches = pool.map(cut, range(start, start + len(chunk)), detections, is_held_out)
            yield from zip(chunk, is_held_out, patches, strict=True)


def _detect(path: Path, settings: PhotoSettings, limit: int) -> Detection | str:
    """Read a photograph and detect its keypoints, or say why it cannot be used."""
    try:
        image_HW = read_photo(path, settings.max_side).pixels
    except UnreadableImageError as error:
        return error.problem
    keypoints = detect_keypoints(image_HW, limit, settings.support, settings.contrast_threshold, settings.separation)
    if len(keypoints.sizes) == 0:
        return "no keypoints found"
    return image_HW, keypoints


def _is_held_out(photo: Path, usable_before: int, settings: PhotoSettings) -> bool:
    if settings.folder == BUNDLED:
        return photo.name in BUNDLED_HELD_OUT
    return usable_before % settings.held_out_every == 0


def _cut(index: int, detection: Detection | str, is_held_out: bool, settings: PhotoSettings, share: int) -> NDArray | str:
    """Draw the patches of photograph `index`, or pass on why it cannot be used."""
    if isinstance(detection, str):
        return detection
    image_HW, keypoints = detection
    rng = np.random.default_rng((settings.seed, index))
    levels = pyramid(image_HW)
    if is_held_out:
        return _held_out_views(levels, keypoints.strongest(settings.held_out_keypoints).corners(settings.support), rng)
    corners_K42 = keypoints.strongest(share).corners(settings.support)
    return random_views(levels, corners_K42, settings.views, LEVELS[settings.level], rng)


def _held_out_views(image_pyramid: list[NDArray], corners_K42: NDArray, rng: np.random.Generator) -> NDArray:
    """The upright patch and one view per level, as in `HELD_OUT_COLUMNS`, uint8 (K, 4, S, S)."""
    upright_K1SS = sample_patches(image_pyramid, corners_K42)[:, None]
    views = [random_views(image_pyramid, corners_K42, 1, view_range, rng) for view_range in LEVELS.values()]
    return np.concatenate([upright_K1SS, *views], 1)


def _open(folder: Path, views: int) -> PhotoPatches:
    try:
        summary = PhotoSummary(**json.loads((folder / SUMMARY_FILE).read_text()))
        counts = np.array(list(summary.held_out.values()))
        keypoints = sum(summary.train.values())
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise UserError(f"the cache {folder} is damaged; remove that folder to rebuild it") from error
    return PhotoPatches(
        train=map_cached(folder / TRAIN_FILE, (keypoints, views, PATCH_SIDE, PATCH_SIDE)),
        held_out=map_cached(folder / HELD_OUT_FILE, (int(counts.sum()), len(HELD_OUT_COLUMNS), PATCH_SIDE, PATCH_SIDE)),
        held_out_photos=np.repeat(np.arange(len(counts)), counts),
        summary=summary,
    )
