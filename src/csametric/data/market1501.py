"""Market-1501 (Zheng et al. 2015), and its folder layout, which other datasets use too."""

import re
from collections.abc import Mapping
from pathlib import Path

from csametric.data.listing import SUFFIXES, Listing, describe_skipped, list_images
from csametric.data.records import Count, Record, ReidDataset
from csametric.errors import UserError, wrong_path

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
PUBLISHED = {"train": Count(12_936, 751), "query": Count(3368, 750), "gallery": Count(15_913, 750)}
_NAME = re.compile(r"(-?\d{1,9})_c(\d{1,9})")


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

    Junk (-1) and distractors (0) in bounding_box_train show nobody in particular, so they are left out of training.

    Args:
        name: of the dataset.
        root: the folder that holds bounding_box_train, query and bounding_box_test.
        published: the counts published by the dataset's authors, by split.

    Raises:
        UserError: a folder is missing or empty, or a file name does not begin with an identity and a camera.
    """
    listings = {split: _list_images(root / folder) for split, folder in FOLDERS.items()}
    splits = {split: [_record(path) for path in listing.images] for split, listing in listings.items()}
    notes = describe_skipped(list(listings.values()))
    nobody = [record for record in splits["train"] if record.identity <= 0]
    if nobody:
        splits["train"] = [record for record in splits["train"] if record.identity > 0]
        notes.append(f"{len(nobody):,} images of identity -1 or 0 left out of training, first {nobody[0].path}")
    return ReidDataset(
        name=name,
        published=dict(published) if published else None,
        train=splits["train"],
        query=splits["query"],
        gallery=splits["gallery"],
        notes=notes,
    )


def _list_images(folder: Path) -> Listing:
    if not folder.is_dir():
        raise UserError(f"{wrong_path('folder', folder)}; give the folder that contains {folder.name}")
    listing = list_images(folder, recursive=False)
    if not listing.images:
        raise UserError(f"{folder} contains no images ({', '.join(sorted(SUFFIXES))}); extract the dataset there")
    return listing


def _record(path: Path) -> Record:
    match = _NAME.match(path.name)
    if match is None:
        raise UserError(
            f"the name of {path} must begin with an identity and a camera, such as 0002_c1s1_000451_03.jpg; "
            "rename or remove the file"
        )
    return Record(path, identity=int(match[1]), camera=int(match[2]))
