"""What a re-identification dataset is: images with an identity and a camera, split into train, query and gallery."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

JUNK = -1  # the identity of what is dropped in evaluation; identity 0 is a distractor and stays


class Record(NamedTuple):
    """An image file, whom it shows (-1: junk, 0: a distractor) and which camera took it."""

    path: Path
    identity: int
    camera: int


class Count(NamedTuple):
    """Images and identities of a split; junk and distractors are images but no identities."""

    images: int
    identities: int

    def __str__(self) -> str:
        return f"{self.images:,} images of {self.identities:,} identities"


@dataclass(frozen=True, kw_only=True)
class ReidDataset:
    """The splits of a dataset, sorted by file name, and the counts its authors published.

    names: what the identities are called where they are not numbers, in the order of their numbers.
    """

    name: str
    train: Sequence[Record]
    query: Sequence[Record]
    gallery: Sequence[Record]
    published: dict[str, Count] | None = None
    names: Sequence[str] = ()

    @property
    def splits(self) -> dict[str, Sequence[Record]]:
        """The three splits by name."""
        return {"train": self.train, "query": self.query, "gallery": self.gallery}

    @property
    def has_several_cameras(self) -> bool:
        """Whether query and gallery come from more than one camera."""
        return len({record.camera for record in (*self.query, *self.gallery)}) > 1

    def differences(self) -> list[str]:
        """A sentence for each split that differs from what was published."""
        found = {name: count(split) for name, split in self.splits.items()}
        return [
            f"{name} has {found[name]}, published are {wanted}"
            for name, wanted in (self.published or {}).items()
            if found[name] != wanted
        ]

    def __str__(self) -> str:
        splits = "; ".join(f"{name} {count(split)}" for name, split in self.splits.items())
        differences = self.differences()
        verdict = f"; NOT AS PUBLISHED: {', '.join(differences)}" if differences else "; as published" if self.published else ""
        return f"{self.name}: {splits}{verdict}"


def count(records: Sequence[Record]) -> Count:
    """Images without junk, identities without distractors."""
    return Count(
        sum(record.identity != JUNK for record in records),
        len({record.identity for record in records if record.identity > 0}),
    )


def queries_without_match(dataset: ReidDataset, camera_filter: bool) -> list[Record]:
    """Queries whose identity the gallery does not have, with the camera filter on another camera."""
    cameras: dict[int, set[int]] = {}
    for record in dataset.gallery:
        cameras.setdefault(record.identity, set()).add(record.camera)
    return [
        query
        for query in dataset.query
        if not cameras.get(query.identity, set()) - ({query.camera} if camera_filter else set())
    ]


def number_identities(records: Sequence[Record]) -> dict[int, int]:
    """Identity -> class from 0 on, in the order of the identities: the same in every process."""
    return {identity: number for number, identity in enumerate(sorted({record.identity for record in records}))}


def data_digest(records: Sequence[Record]) -> str:
    """Sixteen hexadecimal digits of the names, identities and cameras of images."""
    images = [(record.path.name, record.identity, record.camera) for record in records]
    return hashlib.sha256(json.dumps(images).encode()).hexdigest()[:16]
