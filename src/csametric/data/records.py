"""Re-identification datasets: images with an identity and a camera, split into train, query and gallery."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

JUNK = -1  # the identity of images that evaluation ignores; identity 0 marks distractors, which stay in the gallery


class Record(NamedTuple):
    """An image file with its identity and camera.

    Examples:
        >>> Record(Path("0002_c1s1_000451_03.jpg"), identity=2, camera=1).camera
        1
    """

    path: Path
    identity: int  # the person in the image; 0 for a distractor, -1 for junk
    camera: int


class Count(NamedTuple):
    """The size of a split.

    Examples:
        >>> print(Count(images=12_936, identities=751))
        12,936 images of 751 identities
    """

    images: int  # junk excluded, distractors included
    identities: int  # junk and distractors excluded

    def __str__(self) -> str:
        return f"{self.images:,} images of {self.identities:,} identities"


@dataclass(frozen=True, kw_only=True)
class ReidDataset:
    """A dataset with its three splits, each sorted by file name.

    Examples:
        >>> dataset = ReidDataset(name="mine", train=[Record(Path("a.jpg"), 1, 1)], query=[], gallery=[])
        >>> print(dataset)
        mine: train 1 images of 1 identities; query 0 images of 0 identities; gallery 0 images of 0 identities
    """

    name: str
    train: Sequence[Record]
    query: Sequence[Record]
    gallery: Sequence[Record]
    published: dict[str, Count] | None = None  # the counts published by the dataset's authors, by split
    names: Sequence[str] = ()  # names of identities 1, 2, ...; empty where identities are numbers only
    notes: Sequence[str] = ()  # what was left out or not understood, one sentence each

    @property
    def splits(self) -> dict[str, Sequence[Record]]:
        """The three splits by name."""
        return {"train": self.train, "query": self.query, "gallery": self.gallery}

    def label(self, identity: int) -> str:
        """The name of an identity, or its number where it has none."""
        return self.names[identity - 1] if self.names else str(identity)

    @property
    def has_several_cameras(self) -> bool:
        """Whether query and gallery come from more than one camera."""
        return len({record.camera for record in (*self.query, *self.gallery)}) > 1

    def differences(self) -> list[str]:
        """One sentence for each split whose size differs from the published one."""
        counts = {name: count(split) for name, split in self.splits.items()}
        return [
            f"{name} has {counts[name]} but {expected} were published"
            for name, expected in (self.published or {}).items()
            if counts[name] != expected
        ]

    def __str__(self) -> str:
        text = f"{self.name}: " + "; ".join(f"{name} {count(split)}" for name, split in self.splits.items())
        differences = self.differences()
        if differences:
            text += f"; NOT AS PUBLISHED: {', '.join(differences)}"
        elif self.published:
            text += "; as published"
        return "\n".join([text, *(f"note: {note}" for note in self.notes)])


def count(records: Sequence[Record]) -> Count:
    """Count the images that are not junk, and the identities that are neither junk nor distractors.

    Examples:
        >>> count([Record(Path("a.jpg"), 7, 1), Record(Path("b.jpg"), 7, 2), Record(Path("c.jpg"), 0, 1)])
        Count(images=3, identities=1)
    """
    return Count(
        images=sum(record.identity != JUNK for record in records),
        identities=len({record.identity for record in records if record.identity > 0}),
    )


def queries_in_gallery(dataset: ReidDataset, camera_filter: bool) -> list[Record]:
    """Queries whose own file, or a file with the same content, is among the gallery images that they are compared with.

    Args:
        dataset: its query and gallery files are compared, those of equal size by content.
        camera_filter: whether gallery images of the query's identity and camera are left out.
    """
    gallery_by_size: dict[int, list[Record]] = {}
    for record in dataset.gallery:
        gallery_by_size.setdefault(record.path.stat().st_size, []).append(record)

    def is_copy(query: Record, entry: Record) -> bool:
        if entry.identity == JUNK:
            return False
        if camera_filter and (entry.identity, entry.camera) == (query.identity, query.camera):
            return False
        return entry.path == query.path or entry.path.read_bytes() == query.path.read_bytes()

    return [
        query
        for query in dataset.query
        if any(is_copy(query, entry) for entry in gallery_by_size.get(query.path.stat().st_size, ()))
    ]


def queries_without_match(dataset: ReidDataset, camera_filter: bool) -> list[Record]:
    """Queries whose identity is missing from the gallery.

    Args:
        dataset: its query and gallery splits are compared.
        camera_filter: whether only gallery images of other cameras than the query's count as matches.

    Examples:
        >>> query, gallery = Record(Path("a.jpg"), 7, camera=1), Record(Path("b.jpg"), 7, camera=1)
        >>> dataset = ReidDataset(name="mine", train=[], query=[query], gallery=[gallery])
        >>> len(queries_without_match(dataset, camera_filter=True)), len(queries_without_match(dataset, camera_filter=False))
        (1, 0)
    """
    cameras_by_identity: dict[int, set[int]] = {}
    for record in dataset.gallery:
        cameras_by_identity.setdefault(record.identity, set()).add(record.camera)
    unmatched = []
    for query in dataset.query:
        cameras = cameras_by_identity.get(query.identity, set())
        if camera_filter:
            cameras = cameras - {query.camera}
        if not cameras:
            unmatched.append(query)
    return unmatched


def number_identities(records: Sequence[Record]) -> dict[int, int]:
    """Map each identity to a class number from 0, in ascending order of identity.

    The mapping depends on the identities alone, so every process computes the same one.

    Examples:
        >>> number_identities([Record(Path("a.jpg"), 7, 1), Record(Path("b.jpg"), 3, 1)])
        {3: 0, 7: 1}
    """
    return {identity: number for number, identity in enumerate(sorted({record.identity for record in records}))}


class HeldBack(NamedTuple):
    """Training images, and those of identities that are kept out of training."""

    train: Sequence[Record]
    held_back: Sequence[Record]


def hold_back(train: Sequence[Record], share: float, seed: int) -> HeldBack:
    """Keep a share of the training identities out of training, chosen at random; none where it is less than two identities.

    Args:
        train: training images.
        share: of the identities, in [0, 1).
        seed: of the choice, which depends on nothing else but the identities.

    Examples:
        >>> records = [Record(Path(f"{identity}_{k}.jpg"), identity, k) for identity in range(1, 21) for k in (1, 2)]
        >>> [len(part) for part in hold_back(records, 0.1, seed=0)]
        [36, 4]
    """
    identities = sorted({record.identity for record in train})
    number = round(share * len(identities))
    if number < 2:  # verification compares at least two
        return HeldBack(train, [])
    chosen = {identities[index] for index in np.random.default_rng((seed, 5)).permutation(len(identities))[:number]}
    return HeldBack(
        [record for record in train if record.identity not in chosen], [record for record in train if record.identity in chosen]
    )


def data_digest(records: Sequence[Record]) -> str:
    """Hash the file names, identities and cameras of images to 16 hexadecimal digits.

    Examples:
        >>> data_digest([Record(Path("photos/a.jpg"), 7, 1)]) == data_digest([Record(Path("elsewhere/a.jpg"), 7, 1)])
        True
    """
    images = [(record.path.name, record.identity, record.camera) for record in records]
    return hashlib.sha256(json.dumps(images).encode()).hexdigest()[:16]
