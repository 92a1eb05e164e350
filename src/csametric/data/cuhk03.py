"""CUHK03 in the new protocol (Zhong et al. 2017), with detected or labeled boxes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csametric.data.market1501 import read_market_layout
from csametric.data.records import Count, Record, ReidDataset
from csametric.errors import UserError

Boxes = Literal["detected", "labeled"]
SPLITS = ("train", "query", "gallery")
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
    content = _read_mat(protocol)
    records = [
        Record(images / file, int(identity), int(camera))
        for file, identity, camera in zip(content.files, content.labels, content.cameras, strict=True)
    ]
    missing = [record.path for record in records if not record.path.is_file()]
    if missing:
        raise UserError(
            f"{len(missing):,} of the {len(records):,} images in {protocol.name} are missing, first {missing[0]}; "
            "extract the dataset again"
        )
    _check_indices(protocol, content.indices, len(records))
    splits = {split: sorted(records[index - 1] for index in indices.astype(int)) for split, indices in content.indices.items()}
    people = {split: {record.identity for record in splits[split]} for split in splits}
    if people["train"] & (people["query"] | people["gallery"]):
        raise UserError(f"{protocol} has people in both train and test; download the file again")
    return ReidDataset(name=name, published=published, train=splits["train"], query=splits["query"], gallery=splits["gallery"])


class _Protocol(NamedTuple):
    files: list[str]  # n names of images
    labels: NDArray  # (n,), identities
    cameras: NDArray  # (n,)
    indices: dict[str, NDArray]  # by split, numbers of images from 1


def _read_mat(path: Path) -> _Protocol:
    from scipy.io import loadmat

    try:
        content = loadmat(path, squeeze_me=True)
        protocol = _Protocol(
            files=[str(file) for file in content["filelist"]],
            labels=np.atleast_1d(content["labels"]),
            cameras=np.atleast_1d(content["camId"]),
            indices={split: np.atleast_1d(content[f"{split}_idx"]) for split in SPLITS},
        )
    except Exception as error:  # scipy fails in as many ways as a file can be damaged
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); download the file again") from error
    _check_images(path, protocol)
    return protocol


def _check_images(path: Path, protocol: _Protocol) -> None:
    """Raise `UserError` unless every image has one name, one identity and one camera."""
    files = protocol.files
    if len(set(files)) < len(files) or any(Path(file).name != file for file in files):
        raise UserError(f"{path} must name different images, without folders; download the file again")
    for name, values in (("labels", protocol.labels), ("camId", protocol.cameras)):
        if values.shape != (len(files),):
            raise UserError(f"{path} has {len(files):,} images but {values.size:,} {name}; download the file again")
        if not _are_whole_numbers(values) or values.min(initial=1) < 1:
            raise UserError(f"{name} in {path} must be whole numbers from 1; download the file again")


def _are_whole_numbers(values: NDArray) -> bool:
    is_real = np.issubdtype(values.dtype, np.integer) or np.issubdtype(values.dtype, np.floating)
    return is_real and bool((values == np.floor(values)).all())


def _check_indices(protocol: Path, indices: Mapping[str, NDArray], images: int) -> None:
    """Raise `UserError` unless the splits are disjoint and hold whole numbers from 1 to `images`."""
    flat = np.concatenate([split.ravel() for split in indices.values()])
    if not _are_whole_numbers(flat) or flat.min(initial=1) < 1 or flat.max(initial=1) > images:
        raise UserError(f"the image numbers in {protocol} must be whole numbers in 1..{images:,}; download the file again")
    if len(np.unique(flat)) < len(flat):
        raise UserError(f"{protocol} lists an image in two splits, or twice in one; download the file again")
