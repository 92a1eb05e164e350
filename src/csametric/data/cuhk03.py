"""CUHK03 in the new protocol (Zhong et al. 2017), detected and labeled boxes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from csametric.data.market1501 import read_market_layout
from csametric.data.records import Count, Record, ReidDataset
from csametric.errors import UserError

Boxes = Literal["detected", "labeled"]
PUBLISHED: dict[str, dict[str, Count]] = {
    "detected": {"train": Count(7365, 767), "query": Count(1400, 700), "gallery": Count(5332, 700)},
    "labeled": {"train": Count(7368, 767), "query": Count(1400, 700), "gallery": Count(5328, 700)},
}


def read_cuhk03(root: Path, boxes: Boxes) -> ReidDataset:
    """CUHK03-NP, from whichever is there.

    The folders DETECTED_OR_LABELED/bounding_box_train, query and bounding_box_test; or the original images in
    images_detected/ or images_labeled/ (such as 1_001_1_01.png) beside cuhk03_new_protocol_config_detected.mat or _labeled.mat.

    Raises:
        UserError: neither is there, or an image that the .mat lists is missing.
    """
    name = f"CUHK03-NP {boxes}"
    if (root / boxes).is_dir():
        return read_market_layout(name, root / boxes, PUBLISHED[boxes])
    protocol = root / f"cuhk03_new_protocol_config_{boxes}.mat"
    if not protocol.is_file():
        raise UserError(f"{root} has neither the folder {boxes} nor {protocol.name}; put the extracted dataset there")
    return _read_protocol(name, protocol, root / f"images_{boxes}", PUBLISHED[boxes])


def _read_protocol(name: str, protocol: Path, images: Path, published: dict[str, Count]) -> ReidDataset:
    from scipy.io import loadmat

    content = loadmat(protocol, squeeze_me=True)
    records = [
        Record(images / str(file), int(identity), int(camera))
        for file, identity, camera in zip(content["filelist"], content["labels"], content["camId"], strict=True)
    ]
    missing = [record.path.name for record in records if not record.path.is_file()]
    if missing:
        raise UserError(f"{images} lacks {len(missing):,} of the {len(records):,} images {protocol.name} lists ({missing[0]})")
    numbers = {split: np.atleast_1d(content[f"{split}_idx"]) for split in ("train", "query", "gallery")}
    _check_numbers(protocol, numbers, len(records))
    splits = {split: sorted(records[number - 1] for number in own.astype(int)) for split, own in numbers.items()}
    people = {split: {record.identity for record in own} for split, own in splits.items()}
    if people["train"] & (people["query"] | people["gallery"]):
        raise UserError(f"{protocol} has people in both train and test; get the file again")
    return ReidDataset(name=name, published=published, train=splits["train"], query=splits["query"], gallery=splits["gallery"])


def _check_numbers(protocol: Path, numbers: Mapping[str, NDArray], images: int) -> None:
    """Raise `UserError` unless the splits hold whole numbers from 1 to `images` and no image is in two of them."""
    everything = np.concatenate([own.ravel() for own in numbers.values()])
    whole = np.issubdtype(everything.dtype, np.number) and bool((everything == np.floor(everything)).all())
    if not whole or everything.min(initial=1) < 1 or everything.max(initial=1) > images:
        raise UserError(f"the numbers of images in {protocol} must lie in 1..{images:,}; get the file again")
    if len(np.unique(everything)) < len(everything):
        raise UserError(f"{protocol} puts an image into two splits, or into one twice; get the file again")
