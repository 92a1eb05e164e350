"""Patch pairs from ordinary photographs, without labels: every keypoint is an identity, random views are its images.

Photographs are read one after the other into a cache on disk that is keyed by the settings and the files, so a thousand
photographs need the memory of a few. Legend: K keypoints, V views, S = 32 the side of a patch.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
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
from csametric.errors import UserError
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
HELD_OUT_COLUMNS = ("upright", *LEVELS)
TRAIN_FILE, HELD_OUT_FILE, SUMMARY_FILE = "train.u8", "held_out.u8", "summary.json"
NAMED = 20  # skipped files named in a summary; the cache's summary.json has all
_FORMAT = 1
_WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class PhotoSettings:
    """Which photographs, and how patches are drawn from them.

    folder: a folder of photographs, or "bundled" for those inside the scikit-image wheel. keypoints: training keypoints to
    aim at in all; each photograph gives its even share at most. views: views cached of each. level: what training views are
    drawn from. support: region side over keypoint size. max_side: larger photographs are reduced to it, pixels.
    held_out_every: of every n usable photographs of a folder the first is held out.
    held_out_keypoints: most of each held-out photograph.
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
        if not self.folder:
            raise UserError("data.folder is empty; name a folder of photographs")
        if self.seed < 0:
            raise UserError(f"data.seed={self.seed} is no seed; use 0 or more")
        for name, least in (("keypoints", 2), ("views", 2), ("held_out_keypoints", 2), ("held_out_every", 2), ("max_side", 32)):
            if getattr(self, name) < least:
                raise UserError(f"data.{name}={getattr(self, name)} is too few; use {least} or more")
        for name in ("support", "contrast_threshold", "separation"):
            if getattr(self, name) <= 0:
                raise UserError(f"data.{name}={getattr(self, name)} is too little; use a number above 0")

    def without_paths(self) -> Self:
        """The settings without the place of the folder, whose name stays."""
        return replace(self, folder=Path(self.folder).name or "photographs")


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

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of the held-out views, in their order."""
        return HELD_OUT_COLUMNS[1:]


@dataclass(frozen=True, kw_only=True)
class PhotoSummary:
    """What a build found: keypoints of each photograph by name, and the files left out with the reason."""

    train: dict[str, int]
    held_out: dict[str, int]
    skipped: dict[str, str]
    patches: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        text = (
            f"{sum(self.train.values()):,} keypoints of {len(self.train)} photographs to train on, "
            f"{sum(self.held_out.values()):,} of {len(self.held_out)} held out"
        )
        if self.skipped:
            reasons = [f"{name}: {reason}" for name, reason in self.skipped.items()]
            more = [f"{len(reasons) - NAMED} more"] if len(reasons) > NAMED else []
            text += f"; {len(reasons)} skipped ({'; '.join([*reasons[:NAMED], *more])})"
        return text


def photo_root(settings: PhotoSettings) -> Path:
    """The folder that holds the photographs."""
    return Path(str(files("skimage") / "data")) if settings.folder == BUNDLED else Path(settings.folder)


def find_photos(settings: PhotoSettings) -> tuple[list[Path], list[Path]]:
    """The image files by their names, sorted (the bundled ones in their order), and the visible files that are none.

    Raises:
        UserError: the folder is missing or has fewer than two image files.
    """
    folder = photo_root(settings)
    if settings.folder == BUNDLED:
        return [folder / name for name in (*BUNDLED_TRAIN, *BUNDLED_HELD_OUT)], []
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name one that holds photographs")
    photos, others, _ = list_images(folder)
    if len(photos) < 2:
        raise UserError(
            f"{folder} holds {len(photos)} photographs, one to train on and one to hold out are the least; add some "
            f"({', '.join(sorted(SUFFIXES))})"
        )
    return photos, others


def read_photo(path: Path, max_side: int) -> DecodedPhoto:
    """A photograph as grey values, reduced so that no side is longer than `max_side` pixels.

    Raises:
        UserError: as `decode_grey`, also where it is smaller than a patch.
    """
    photo = decode_grey(path, max_side)
    if min(photo.pixels.shape) < PATCH_SIDE:
        raise UnreadableImageError(path, f"is smaller than {PATCH_SIDE} pixels; use a larger image", "size")
    return photo


def open_photo_patches(settings: PhotoSettings, cache: Path | None = None, progress: Progress | None = None) -> PhotoPatches:
    """The patches of these settings, built into the cache if they are not there.

    Args:
        cache: the cache's folder; by default $CSAMETRIC_CACHE or ~/.cache/csametric.
        progress: called with (photographs done, photographs in all).

    Raises:
        UserError: no photographs, none usable, or a full disk.
    """
    photos, others = find_photos(settings)

    def write(aside: Path) -> None:
        summary = _write(settings, photos, others, aside, progress or (lambda done, total: None))
        with (aside / SUMMARY_FILE).open("w") as out:
            json.dump(asdict(summary), out, indent=1)
            sync_file(out)

    described = [_FORMAT, asdict(settings), {name: asdict(level) for name, level in LEVELS.items()}]
    return _open(cached_folder(f"photos-{cache_key(described, [*photos, *others])}", write, cache), settings.views)


def check_held_out(patches: PhotoPatches) -> None:
    """Raises `UserError` where no held-out photograph has two keypoints to tell apart."""
    if max(patches.summary.held_out.values()) < 2:
        raise UserError("no held-out photograph has two keypoints to tell apart; add larger or more textured photographs")


def _write(settings: PhotoSettings, photos: list[Path], others: list[Path], aside: Path, progress: Progress) -> PhotoSummary:
    started, root = time.monotonic(), photo_root(settings)
    skipped = {path.relative_to(root).as_posix(): "not a photograph by its name" for path in others}
    counts: dict[bool, dict[str, int]] = {True: {}, False: {}}
    with (aside / TRAIN_FILE).open("wb") as train, (aside / HELD_OUT_FILE).open("wb") as held_out:
        for done, (photo, is_held_out, patches) in enumerate(_in_order(photos, settings), 1):
            name = photo.relative_to(root).as_posix()
            if isinstance(patches, str):
                skipped[name] = patches
            else:
                counts[is_held_out][name] = len(patches)
                (held_out if is_held_out else train).write(patches.data)
            progress(done, len(photos))
        sync_file(train)
        sync_file(held_out)
    if not counts[False] or not counts[True]:
        reason = next(reversed(skipped.values()), "only one is there")
        usable = len(counts[False]) + len(counts[True])
        raise UserError(
            f"{usable} of the {len(photos)} photographs have usable keypoints ({reason}), one to train on and one to hold out "
            "are the least; add larger or more textured ones"
        )
    patches_written = sum(counts[False].values()) * settings.views + sum(counts[True].values()) * len(HELD_OUT_COLUMNS)
    return PhotoSummary(
        train=counts[False],
        held_out=counts[True],
        skipped=skipped,
        patches=patches_written,
        seconds=time.monotonic() - started,
    )


def _in_order(photos: list[Path], settings: PhotoSettings) -> Iterator[tuple[Path, bool, NDArray | str]]:
    """Each photograph in order, whether it is held out, and its patches or the reason it was skipped.

    The first of every `held_out_every` usable photographs is held out, so that a bad file never costs a split. A few
    photographs are in memory at a time.
    """
    held_out = len(BUNDLED_HELD_OUT) if settings.folder == BUNDLED else -(-len(photos) // settings.held_out_every)
    share = -(-settings.keypoints // max(1, len(photos) - held_out))
    usable = 0

    def read(photo: Path) -> tuple[NDArray, Keypoints] | str:
        try:
            image_HW = read_photo(photo, settings.max_side).pixels
        except UnreadableImageError as error:
            return error.problem
        keypoints = detect_keypoints(
            image_HW,
            max(share, settings.held_out_keypoints),
            settings.support,
            settings.contrast_threshold,
            settings.separation,
        )
        return (image_HW, keypoints) if len(keypoints.sizes) else "no keypoints"

    def cut(index: int, found: tuple[NDArray, Keypoints] | str, is_held_out: bool) -> NDArray | str:
        if isinstance(found, str):
            return found
        image_HW, keypoints = found
        rng = np.random.default_rng((settings.seed, index))
        limit, make = (settings.held_out_keypoints, _held_out_views) if is_held_out else (share, _training_views)
        return make(image_HW, keypoints.strongest(limit).corners(settings.support), settings, rng)

    with ThreadPoolExecutor(_WORKERS) as pool:
        for start in range(0, len(photos), 2 * _WORKERS):
            chunk = photos[start : start + 2 * _WORKERS]
            found = list(pool.map(read, chunk))
            is_held_out = []
            for photo, each in zip(chunk, found, strict=True):
                is_held_out.append(_is_held_out(photo, usable, settings))
                usable += not isinstance(each, str)
            patches = pool.map(cut, range(start, start + len(chunk)), found, is_held_out)
            yield from zip(chunk, is_held_out, patches, strict=True)


def _is_held_out(photo: Path, usable_before: int, settings: PhotoSettings) -> bool:
    if settings.folder == BUNDLED:
        return photo.name in BUNDLED_HELD_OUT
    return usable_before % settings.held_out_every == 0


def _training_views(image_HW: NDArray, corners_K42: NDArray, settings: PhotoSettings, rng: np.random.Generator) -> NDArray:
    return random_views(pyramid(image_HW), corners_K42, settings.views, LEVELS[settings.level], rng)


def _held_out_views(image_HW: NDArray, corners_K42: NDArray, settings: PhotoSettings, rng: np.random.Generator) -> NDArray:
    levels = pyramid(image_HW)
    upright_K1SS = sample_patches(levels, corners_K42)[:, None]
    return np.concatenate([upright_K1SS, *(random_views(levels, corners_K42, 1, view, rng) for view in LEVELS.values())], 1)


def _open(folder: Path, views: int) -> PhotoPatches:
    try:
        summary = PhotoSummary(**json.loads((folder / SUMMARY_FILE).read_text()))
        counts = np.array(list(summary.held_out.values()))
        keypoints = sum(summary.train.values())
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise UserError(f"the cache {folder} is damaged; remove that folder and it is built again") from error
    return PhotoPatches(
        train=map_cached(folder / TRAIN_FILE, (keypoints, views, PATCH_SIDE, PATCH_SIDE)),
        held_out=map_cached(folder / HELD_OUT_FILE, (int(counts.sum()), len(HELD_OUT_COLUMNS), PATCH_SIDE, PATCH_SIDE)),
        held_out_photos=np.repeat(np.arange(len(counts)), counts),
        summary=summary,
    )
