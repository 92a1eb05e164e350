"""Patch pairs from ordinary photographs, without labels: every keypoint is an identity, random views are its images.

Photographs are read one after the other into a cache on disk that is keyed by the settings and the files, so a thousand
photographs need the memory of a few. Legend: K keypoints, V views, S = 32 the side of a patch.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from csametric.data.keypoints import CONTRAST_THRESHOLD, SEPARATION, SUPPORT, Keypoints, detect_keypoints
from csametric.data.views import LEVELS, PATCH_SIDE, pyramid, random_views, sample_patches
from csametric.errors import UserError, explaining_full_disk

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
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
HELD_OUT_COLUMNS = ("upright", *LEVELS)
TRAIN_FILE, HELD_OUT_FILE = "train.u8", "held_out.u8"
STALE_AFTER = 3600.0  # seconds
_FORMAT = 1
_WORKERS = 2

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class PhotoSettings:
    """Which photographs, and how patches are drawn from them.

    folder: a folder of photographs, or "bundled" for those inside the scikit-image wheel. keypoints: most training
    keypoints in all, shared evenly among the photographs. views: views cached of each. level: what training views are
    drawn from. support: region side over keypoint size. max_side: larger photographs are reduced to it, pixels.
    held_out_every: every n-th photograph of a folder is held out. held_out_keypoints: most of each held-out photograph.
    """

    folder: str = BUNDLED
    keypoints: int = 20_000
    views: int = 16
    level: Literal["easy", "hard", "tough"] = "tough"
    support: float = SUPPORT
    contrast_threshold: float = CONTRAST_THRESHOLD
    separation: float = SEPARATION
    max_side: int = 1600
    held_out_every: int = 5
    held_out_keypoints: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("keypoints", 2), ("views", 2), ("held_out_keypoints", 2), ("held_out_every", 2), ("max_side", 32)):
            if getattr(self, name) < least:
                raise UserError(f"data.{name}={getattr(self, name)} is too few; use {least} or more")
        if self.support <= 0:
            raise UserError(f"data.support={self.support} leaves no patch; use a number above 0, for example {SUPPORT}")


@dataclass(frozen=True, kw_only=True)
class PhotoPatches:
    """The cache, opened. Patches are grey, uint8.

    train: (K, V, 32, 32), memory-mapped. held_out: (K', 4, 32, 32), the upright patch and one view at each level, as
    `HELD_OUT_COLUMNS` names them. held_out_photos: (K',), the photograph each came from. summary: what was read, what
    was skipped and why.
    """

    train: NDArray
    held_out: NDArray
    held_out_photos: NDArray
    summary: "PhotoSummary"


@dataclass(frozen=True, kw_only=True)
class PhotoSummary:
    """What a build found: keypoints of each photograph by name, and the files left out with the reason."""

    train: dict[str, int]
    held_out: dict[str, int]
    skipped: dict[str, str]
    patches: int = 0
    seconds: float = 0.0
    cached: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        text = (
            f"{sum(self.train.values()):,} keypoints of {len(self.train)} photographs to train on, "
            f"{sum(self.held_out.values()):,} of {len(self.held_out)} held out"
        )
        if self.skipped:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.skipped.items())
            text += f"; {len(self.skipped)} skipped ({reasons})"
        return text


MakePatches = Callable[[NDArray, PhotoSettings, np.random.Generator], NDArray]


class UnreadablePhotoError(Exception):
    """A file that is no whole photograph; the message says why."""


def photo_root(settings: PhotoSettings) -> Path:
    """The folder that holds the photographs."""
    return Path(str(files("skimage") / "data")) if settings.folder == BUNDLED else Path(settings.folder)


def split_photos(settings: PhotoSettings) -> tuple[list[Path], list[Path]]:
    """The sorted photographs to train on and to hold out.

    Raises:
        UserError: the folder is missing or has fewer than two image files.
    """
    folder = photo_root(settings)
    if settings.folder == BUNDLED:
        return [folder / name for name in BUNDLED_TRAIN], [folder / name for name in BUNDLED_HELD_OUT]
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name one that holds photographs")
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if len(photos) < 2:
        raise UserError(
            f"{folder} holds {len(photos)} photographs, one to train on and one to hold out are the least; add some "
            f"({', '.join(sorted(SUFFIXES))})"
        )
    every = min(settings.held_out_every, len(photos))
    held_out = photos[every - 1 :: every]
    return [photo for photo in photos if photo not in set(held_out)], held_out


def read_photo(path: Path, max_side: int) -> NDArray:
    """A photograph as grey uint8 (H, W), reduced so that no side is above `max_side`.

    Raises:
        UnreadablePhotoError: the file is truncated, no image, or smaller than a patch.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.draft("L", (max_side, max_side))
            sixteen_bits = image.mode.startswith("I;16")
            grey = (image.convert("I").point(lambda value: value / 256) if sixteen_bits else image).convert("L")
    except Exception as error:
        raise UnreadablePhotoError(f"not a whole image ({error})") from error
    if max(grey.size) > max_side:
        grey.thumbnail((max_side, max_side), Image.Resampling.BOX)
    if min(grey.size) < PATCH_SIDE:
        raise UnreadablePhotoError(f"smaller than {PATCH_SIDE} pixels")
    return np.asarray(grey)


def open_photo_patches(settings: PhotoSettings, cache: Path | None = None, progress: Progress | None = None) -> PhotoPatches:
    """The patches of these settings, built into the cache if they are not there.

    Args:
        cache: the cache's folder; by default $CSAMETRIC_CACHE or ~/.cache/csametric.
        progress: called with (photographs done, photographs in all).

    Raises:
        UserError: no photographs, none usable, or a full disk.
    """
    train, held_out = split_photos(settings)
    root = cache or Path(os.environ.get("CSAMETRIC_CACHE", Path.home() / ".cache" / "csametric"))
    folder = root / f"photos-{_key(settings, [*train, *held_out])}"
    cached = (folder / "summary.json").exists()
    if not cached:
        with explaining_full_disk(root, "free some room or set CSAMETRIC_CACHE to another folder"):
            _build(settings, train, held_out, folder, progress or (lambda done, total: None))
    return _open(folder, cached)


def _key(settings: PhotoSettings, photos: Sequence[Path]) -> str:
    stamps = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in photos]
    described = json.dumps([_FORMAT, asdict(settings), {name: asdict(level) for name, level in LEVELS.items()}, stamps])
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def _build(settings: PhotoSettings, train: list[Path], held_out: list[Path], folder: Path, progress: Progress) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left_by_a_kill in folder.parent.glob(f".{folder.name}-*"):
        if time.time() - left_by_a_kill.stat().st_mtime > STALE_AFTER:
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        summary = _write(settings, train, held_out, aside, progress)
        with (aside / "summary.json").open("w") as out:
            json.dump(asdict(summary), out, indent=1)
            _sync(out)
        try:
            aside.rename(folder)
        except OSError:
            if not folder.exists():  # another process may have finished the same cache first
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(settings: PhotoSettings, train: list[Path], held_out: list[Path], aside: Path, progress: Progress) -> PhotoSummary:
    started = time.monotonic()
    skipped: dict[str, str] = {}
    total, root = len(train) + len(held_out), photo_root(settings)
    share = replace(settings, keypoints=-(-settings.keypoints // len(train)))

    def write_all(photos: list[Path], name: str, purpose: str, make: MakePatches, done: int) -> dict[str, int]:
        counts: dict[str, int] = {}
        with (aside / name).open("wb") as out:
            for index, (photo, patches) in enumerate(_in_order(photos, share, make, offset=done)):
                label = photo.relative_to(root).as_posix()
                if isinstance(patches, str):
                    skipped[label] = patches
                else:
                    counts[label] = len(patches)
                    patches.tofile(out)
                progress(done + index + 1, total)
            _sync(out)
        if not counts:
            reason = next(reversed(skipped.values()))
            raise UserError(
                f"none of the {len(photos)} photographs to {purpose} has usable keypoints ({reason}); "
                "add larger or more textured ones"
            )
        return counts

    train_counts = write_all(train, TRAIN_FILE, "train on", _training_views, 0)
    held_out_counts = write_all(held_out, HELD_OUT_FILE, "hold out", _held_out_views, len(train))
    patches = sum(train_counts.values()) * settings.views + sum(held_out_counts.values()) * len(HELD_OUT_COLUMNS)
    seconds = time.monotonic() - started
    return PhotoSummary(train=train_counts, held_out=held_out_counts, skipped=skipped, patches=patches, seconds=seconds)


def _sync(out: IO[Any]) -> None:
    out.flush()
    os.fsync(out.fileno())


def _in_order(
    photos: list[Path], settings: PhotoSettings, make: MakePatches, offset: int
) -> Iterator[tuple[Path, NDArray | str]]:
    """Patches of each photograph in order, or the reason it was skipped; a few photographs are in memory at a time."""

    def patches_of(index: int) -> NDArray | str:
        try:
            image_HW = read_photo(photos[index], settings.max_side)
        except UnreadablePhotoError as reason:
            return str(reason)
        patches = make(image_HW, settings, np.random.default_rng((settings.seed, offset + index)))
        return patches if len(patches) else "no keypoints"

    with ThreadPoolExecutor(_WORKERS) as pool:
        for start in range(0, len(photos), 2 * _WORKERS):
            indices = range(start, min(start + 2 * _WORKERS, len(photos)))
            yield from zip((photos[index] for index in indices), pool.map(patches_of, indices), strict=True)


def _training_views(image_HW: NDArray, settings: PhotoSettings, rng: np.random.Generator) -> NDArray:
    keypoints = _keypoints(image_HW, settings, settings.keypoints)
    corners = keypoints.corners(settings.support)
    return random_views(pyramid(image_HW), corners, settings.views, LEVELS[settings.level], rng)


def _held_out_views(image_HW: NDArray, settings: PhotoSettings, rng: np.random.Generator) -> NDArray:
    corners = _keypoints(image_HW, settings, settings.held_out_keypoints).corners(settings.support)
    levels = pyramid(image_HW)
    upright_K1SS = sample_patches(levels, corners)[:, None]
    return np.concatenate([upright_K1SS, *(random_views(levels, corners, 1, view, rng) for view in LEVELS.values())], 1)


def _keypoints(image_HW: NDArray, settings: PhotoSettings, limit: int) -> Keypoints:
    return detect_keypoints(image_HW, limit, settings.support, settings.contrast_threshold, settings.separation)


def _open(folder: Path, cached: bool) -> PhotoPatches:
    summary = PhotoSummary(**json.loads((folder / "summary.json").read_text()))
    summary = replace(summary, cached=cached)
    counts = np.array(list(summary.held_out.values()))
    return PhotoPatches(
        train=_map(folder / TRAIN_FILE, sum(summary.train.values())),
        held_out=_map(folder / HELD_OUT_FILE, int(counts.sum())),
        held_out_photos=np.repeat(np.arange(len(counts)), counts),
        summary=summary,
    )


def _map(path: Path, keypoints: int) -> NDArray:
    patches = np.memmap(path, np.uint8, "r")
    return patches.reshape(keypoints, -1, PATCH_SIDE, PATCH_SIDE)
