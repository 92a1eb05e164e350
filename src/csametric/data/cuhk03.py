"""CUHK03 in the new protocol (Zhong et al. 2017), with detected or labeled boxes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csametric.data.market1501 import read_market_layout
from csametric.data.matfile import read_mat
from csametric.data.records import Count, Record, ReidDataset
from csametric.errors import UserError
from csametric.files import is_file, read_text

Boxes = Literal["detected", "labeled"]
SPLITS = ("train", "query", "gallery")
ARRAYS = ("filelist", "labels", "camId", *(f"{split}_idx" for split in SPLITS))  # what the file of the split holds
PUBLISHED: dict[str, dict[str, Count]] = {
    "detected": {"train": Count(7365, 767), "query": Count(1400, 700), "gallery": Count(5332, 700)},
    "labeled": {"train": Count(7368, 767), "query": Count(1400, 700), "gallery": Count(5328, 700)},
}


def read_cuhk03(root: Path, boxes: Boxes) -> ReidDataset:
    """Read CUHK03-NP from either of its two layouts.

    Args:
        root: a folder with detected/ or labeled/, which holds bounding_box_train, query and bounding_box_test; or with the
            original images in images_detected/ or images_labeled/ (such as 1_001_1_01.png) beside
            cuhk03_new_protocol_config_detected.mat or _labeled.mat, or a .json with the same names.
        boxes: "detected" (found by a person detector) or "labeled" (drawn by hand).

    Raises:
        UserError: the folder has neither layout, the file of the split is damaged, or an image that it lists is missing.
    """
    name = f"CUHK03-NP {boxes}"
    if (root / boxes).is_dir():
        return read_market_layout(name, root / boxes, PUBLISHED[boxes])
    candidates = [root / f"cuhk03_new_protocol_config_{boxes}{suffix}" for suffix in (".json", ".mat")]
    protocol = next((path for path in candidates if path.is_file()), None)
    if protocol is None:
        name = candidates[-1].name
        raise UserError(f"{root} must contain the folder {boxes} or the file {name} (or .json); extract the dataset there")
    return _read_protocol(name, protocol, root / f"images_{boxes}", PUBLISHED[boxes])


def _read_protocol(name: str, protocol: Path, images: Path, published: dict[str, Count]) -> ReidDataset:
    content = _read_split(protocol)
    records = [
        Record(images / file, int(identity), int(camera))
        for file, identity, camera in zip(content.files, content.labels, content.cameras, strict=True)
    ]
    missing = [record.path for record in records if not is_file(record.path)]
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


def _read_split(path: Path) -> _Protocol:
    arrays = _read_json(path) if path.suffix == ".json" else read_mat(path, ARRAYS)
    protocol = _Protocol(
        files=[str(file) for file in arrays["filelist"]],
        labels=arrays["labels"],
        cameras=arrays["camId"],
        indices={split: arrays[f"{split}_idx"] for split in SPLITS},
    )
    _check_images(path, protocol)
    return protocol


def _read_json(path: Path) -> dict[str, NDArray]:
    try:
        values = json.loads(read_text(path))
        arrays = {name: np.array(values[name]) for name in ARRAYS}
        if any(array.ndim != 1 or array.dtype == object for array in arrays.values()):
            raise ValueError("every value must be a list of numbers or names")
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} must be a JSON object with the lists {', '.join(ARRAYS)} ({problem})") from error
    return arrays


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
