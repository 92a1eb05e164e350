"""What is in a dataset, and what is wrong with it."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from csametric.data.loading import prefetch
from csametric.data.records import JUNK, Record, ReidDataset, queries_without_match
from csametric.data.transforms import read_image
from csametric.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """Of one split: images by camera; images an identity has at least, in the middle and at most; identities seen by
    one camera only, which make no match under the camera filter.
    """

    images: int
    identities: int
    junk: int
    distractors: int
    cameras: dict[int, int]
    per_identity: tuple[int, int, int]
    one_camera: int


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Of a dataset: its splits, unreadable files with the reason, files alike byte for byte in two splits, queries without
    a match in the gallery.
    """

    splits: dict[str, SplitReport]
    unreadable: dict[str, str]
    duplicates: list[tuple[str, str]]
    unmatched: list[str]


def inspect(dataset: ReidDataset, progress: Callable[[int, int], None] = lambda done, total: None) -> Inspection:
    """Read every file of a dataset once; progress is called with (files done, files in all)."""
    records = [record for split in dataset.splits.values() for record in split]
    read = {}
    for done, (record, found) in enumerate(zip(records, prefetch(_read, records), strict=True), 1):
        read[record] = found
        progress(done, len(records))
    return Inspection(
        splits={name: _report(split) for name, split in dataset.splits.items()},
        unreadable={str(record.path): problem for record, (_, problem) in read.items() if problem},
        duplicates=_duplicates(dataset, {record: digest for record, (digest, _) in read.items()}),
        unmatched=[str(query.path) for query in queries_without_match(dataset, dataset.has_several_cameras)],
    )


def unreadable(dataset: ReidDataset) -> Iterator[str]:
    """A sentence for each file that is no whole image."""
    records = [record for split in dataset.splits.values() for record in split]
    yield from filter(None, prefetch(_problem, records))


def _problem(record: Record) -> str:
    try:
        read_image(record.path, 8, 8)
    except UserError as error:
        return str(error)
    return ""


def _read(record: Record) -> tuple[bytes, str]:
    problem = _problem(record)
    return b"" if problem else hashlib.sha256(record.path.read_bytes()).digest(), problem


def _report(records: Sequence[Record]) -> SplitReport:
    people = [record for record in records if record.identity > 0]
    sizes = sorted(Counter(record.identity for record in people).values()) or [0]
    seen: dict[int, set[int]] = {}
    for record in people:
        seen.setdefault(record.identity, set()).add(record.camera)
    return SplitReport(
        images=len(records),
        identities=len(seen),
        junk=sum(record.identity == JUNK for record in records),
        distractors=sum(record.identity == 0 for record in records),
        cameras=dict(sorted(Counter(record.camera for record in records).items())),
        per_identity=(sizes[0], sizes[len(sizes) // 2], sizes[-1]),
        one_camera=sum(len(cameras) == 1 for cameras in seen.values()),
    )


def _duplicates(dataset: ReidDataset, digests: dict[Record, bytes]) -> list[tuple[str, str]]:
    first: dict[bytes, tuple[str, str]] = {}
    found = []
    for name, split in dataset.splits.items():
        for record in split:
            known = first.setdefault(digests[record], (name, str(record.path))) if digests[record] else (name, "")
            if known[0] != name:
                found.append((known[1], str(record.path)))
    return found
