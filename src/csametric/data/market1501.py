"""Market-1501 (Zheng et al. 2015), and the folder layout that others took over from it."""

import re
from collections.abc import Mapping
from pathlib import Path

from csametric.data.listing import SUFFIXES, list_images
from csametric.data.records import Count, Record, ReidDataset
from csametric.errors import UserError

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
PUBLISHED = {"train": Count(12_936, 751), "query": Count(3368, 750), "gallery": Count(15_913, 750)}
_NAME = re.compile(r"(-?\d+)_c(\d+)")


def read_market1501(root: Path) -> ReidDataset:
    """The folders bounding_box_train, query and bounding_box_test; junk is -1, distractors are 0.

    Raises:
        UserError: a missing or empty folder, or a file name without identity and camera.
    """
    return read_market_layout("Market-1501", root, PUBLISHED)


def read_market_layout(name: str, root: Path, published: Mapping[str, Count] | None) -> ReidDataset:
    """A dataset in Market-1501's folders, with file names that begin IDENTITY_cCAMERA."""
    splits = {split: [_record(path) for path in _images(root / folder)] for split, folder in FOLDERS.items()}
    return ReidDataset(
        name=name,
        published=dict(published) if published else None,
        train=splits["train"],
        query=splits["query"],
        gallery=splits["gallery"],
    )


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name the folder that holds {folder.name}")
    images = list_images(folder, recursive=False).images
    if not images:
        raise UserError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}); extract the dataset there")
    return images


def _record(path: Path) -> Record:
    found = _NAME.match(path.name)
    if found is None:
        raise UserError(f"{path} does not begin with an identity and a camera, as 0002_c1s1_000451_03.jpg does; remove it")
    return Record(path, int(found[1]), int(found[2]))
