"""Market-1501 (Zheng et al. 2015), and its folder layout, which other datasets use too."""

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
    """Read Market-1501, in which identity -1 is junk and identity 0 a distractor.

    Args:
        root: the folder that holds bounding_box_train, query and bounding_box_test.

    Raises:
        UserError: a folder is missing or empty, or a file name does not begin with an identity and a camera.
    """
    return read_market_layout("Market-1501", root, PUBLISHED)


def read_market_layout(name: str, root: Path, published: Mapping[str, Count] | None) -> ReidDataset:
    """Read a dataset in Market-1501's folder layout, with file names such as 0002_c1s1_000451_03.jpg.

    Args:
        name: of the dataset.
        root: the folder that holds bounding_box_train, query and bounding_box_test.
        published: the counts published by the dataset's authors, by split.

    Raises:
        UserError: a folder is missing or empty, or a file name does not begin with an identity and a camera.
    """
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
        raise UserError(f"folder {folder} does not exist; give the folder that contains {folder.name}")
    images = list_images(folder, recursive=False).images
    if not images:
        raise UserError(f"{folder} contains no images ({', '.join(sorted(SUFFIXES))}); extract the dataset there")
    return images


def _record(path: Path) -> Record:
    match = _NAME.match(path.name)
    if match is None:
        raise UserError(
            f"the name of {path} must begin with an identity and a camera, such as 0002_c1s1_000451_03.jpg; "
            "rename or remove the file"
        )
    return Record(path, identity=int(match[1]), camera=int(match[2]))
