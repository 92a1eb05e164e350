"""CUHK03 in the new protocol (Zhong et al. 2017), with detected or labeled boxes."""

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
    """Read CUHK03-NP from either of its two layouts.

    Args:
        root: a folder with detected/ or labeled/, which holds bounding_box_train, query and bounding_box_test; or with the
            original images in images_detected/ or images_labeled/ (such as 1_001_1_01.png) beside
            cuhk03_new_protocol_config_detected.mat or _labeled.mat.
        boxes: "detected" (found by a person detector) or "labeled" (drawn by hand).

    Raises:
        UserError: the folder has neither layout, the .mat file is damaged, or an image that it lists is missing.
    """
    name = f"CUHK03-NP {boxes}"
    if (root / boxes).is_dir():
        return read_market_layout(name, root / boxes, PUBLISHED[boxes])
    protocol = root / f"cuhk03_new_protocol_config_{boxes}.mat"
    if not protocol.is_file():
        raise UserError(f"{root} must contain the folder {boxes} or the file {protocol.name}; extract the dataset there")
    return _read_protocol(name, protocol, root / f"images_{boxes}", PUBLISHED[boxes])


def _read_protocol(name: str, protocol: Path, images: Path, published: dict[str, Count]) -> ReidDataset:
    from scipy.io import loadmat

    content = loadmat(protocol, squeeze_me=True)
    records = [
        Record(images / str(file), int(identity), int(camera))
        for file, identity, camera in zip(content["filelist"], content["labels"], content["camId"], strict=True)
    ]
    missing = [record.path for record in records if not record.path.is_file()]
    if missing:
        raise UserError(
            f"{len(missing):,} of the {len(records):,} images in {protocol.name} are missing, first {missing[0]}; "
            "extract the dataset again"
        )
    indices = {split: np.atleast_1d(content[f"{split}_idx"]) for split in ("train", "query", "gallery")}
    _check_indices(protocol, indices, len(records))
    splits = {split: sorted(records[index - 1] for index in indices[split].astype(int)) for split in indices}
    people = {split: {record.identity for record in splits[split]} for split in splits}
    if people["train"] & (people["query"] | people["gallery"]):
        raise UserError(f"{protocol} has people in both train and test; download the file again")
    return ReidDataset(name=name, published=published, train=splits["train"], query=splits["query"], gallery=splits["gallery"])


def _check_indices(protocol: Path, indices: Mapping[str, NDArray], images: int) -> None:
    """Raise `UserError` unless the splits are disjoint and hold whole numbers from 1 to `images`."""
    flat = np.concatenate([split.ravel() for split in indices.values()])
    is_integral = np.issubdtype(flat.dtype, np.number) and bool((flat == np.floor(flat)).all())
    if not is_integral or flat.min(initial=1) < 1 or flat.max(initial=1) > images:
        raise UserError(f"the image numbers in {protocol} must be whole numbers in 1..{images:,}; download the file again")
    if len(np.unique(flat)) < len(flat):
        raise UserError(f"{protocol} lists an image in two splits, or twice in one; download the file again")
