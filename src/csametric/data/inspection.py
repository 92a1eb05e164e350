"""Inspection of a dataset: the size of its splits, and what is wrong with its files."""

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
    """What a split contains."""

    images: int
    identities: int
    junk: int  # images
    distractors: int  # images
    cameras: dict[int, int]  # number of images by camera
    per_identity: tuple[int, int, int]  # images of an identity: minimum, median, maximum
    one_camera: int  # identities seen by one camera only, which cannot match under the camera filter


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a dataset contains, and its problems."""

    splits: dict[str, SplitReport]
    unreadable: dict[str, str]  # the problem of each file that cannot be decoded, by path
    duplicates: list[tuple[str, str]]  # paths of identical files in two splits
    unmatched: list[str]  # paths of queries without a match in the gallery


def inspect(dataset: ReidDataset, progress: Callable[[int, int], None] = lambda done, total: None) -> Inspection:
    """Read every file of a dataset once and report what is wrong.

    Args:
        dataset: its files need not be readable.
        progress: called with (files done, files in total).
    """
    records = _all_records(dataset)
    digests, problems = {}, {}
    for done, (record, (digest, problem)) in enumerate(zip(records, prefetch(_check, records), strict=True), 1):
        digests[record] = digest
        problems[record] = problem
        progress(done, len(records))
    return Inspection(
        splits={name: _report(split) for name, split in dataset.splits.items()},
        unreadable={str(record.path): problem for record, problem in problems.items() if problem},
        duplicates=_duplicates(dataset, digests),
        unmatched=[str(query.path) for query in queries_without_match(dataset, dataset.has_several_cameras)],
    )


def unreadable_files(dataset: ReidDataset) -> Iterator[str]:
    """Yield a sentence for each image file that cannot be decoded."""
    yield from filter(None, prefetch(_problem, _all_records(dataset)))


def _all_records(dataset: ReidDataset) -> list[Record]:
    return [record for split in dataset.splits.values() for record in split]


def _problem(record: Record) -> str:
    """Why an image cannot be decoded; empty if it can."""
    try:
        read_image(record.path, 8, 8)
    except UserError as error:
        return str(error)
    return ""


def _check(record: Record) -> tuple[bytes, str]:
    """The hash of a readable file, or an empty one with the problem."""
    problem = _problem(record)
    if problem:
        return b"", problem
    return hashlib.sha256(record.path.read_bytes()).digest(), ""


def _report(records: Sequence[Record]) -> SplitReport:
    people = [record for record in records if record.identity > 0]
    sizes = sorted(Counter(record.identity for record in people).values()) or [0]
    cameras_by_identity: dict[int, set[int]] = {}
    for record in people:
        cameras_by_identity.setdefault(record.identity, set()).add(record.camera)
    return SplitReport(
        images=len(records),
        identities=len(cameras_by_identity),
        junk=sum(record.identity == JUNK for record in records),
        distractors=sum(record.identity == 0 for record in records),
        cameras=dict(sorted(Counter(record.camera for record in records).items())),
        per_identity=(sizes[0], sizes[len(sizes) // 2], sizes[-1]),
        one_camera=sum(len(cameras) == 1 for cameras in cameras_by_identity.values()),
    )


def _duplicates(dataset: ReidDataset, digests: dict[Record, bytes]) -> list[tuple[str, str]]:
    """Pair each file with the first file of the same content, where the two are in different splits."""
    first_by_digest: dict[bytes, tuple[str, str]] = {}  # split and path
    duplicates = []
    for name, split in dataset.splits.items():
        for record in split:
            digest, path = digests[record], str(record.path)
            if not digest:  # unreadable
                continue
            first_split, first_path = first_by_digest.setdefault(digest, (name, path))
            if first_split != name:
                duplicates.append((first_path, path))
    return duplicates
