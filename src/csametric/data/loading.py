"""Batches made by threads ahead of their use; what is in a batch is a pure function of its step."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from csametric.data.records import Record
from csametric.data.transforms import Augmentation, augment, read_image

WORKERS = 2

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(make: Callable[[Item], Made], items: Iterable[Item], workers: int = WORKERS) -> Iterator[Made]:
    """make(item) of each item in order, the next few under way in threads."""
    pool = ThreadPoolExecutor(workers)
    under_way: deque[Future[Made]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(make, item))
            if len(under_way) > workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_batches(items: Sequence[Any] | NDArray, size: int) -> list[Any]:
    """Slices of `size` items in order, the last one of what is left."""
    return [items[start : start + size] for start in range(0, len(items), size)]


class ImageBatch(NamedTuple):
    """images: uint8 (N, H, W, 3). classes: int64 (N,). records: whence they came."""

    images: NDArray
    classes: NDArray
    records: Sequence[Record]


def image_batch(
    records: Sequence[Record],
    classes: NDArray,
    *,
    height: int,
    width: int,
    augmentation: Augmentation,
    seed: tuple[int, ...],
) -> ImageBatch:
    """Read and augment the images of a training batch; those of image i draw from the generator of (*seed, i)."""
    images = [
        augment(read_image(record.path, height, width), augmentation, np.random.default_rng((*seed, place)))
        for place, record in enumerate(records)
    ]
    return ImageBatch(np.stack(images), classes, records)


def read_images(records: Sequence[Record], height: int, width: int) -> NDArray:
    """The images of records, uint8 (N, height, width, 3)."""
    return np.stack([read_image(record.path, height, width) for record in records])
