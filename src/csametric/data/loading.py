"""Image batches, and a prefetcher that computes the next batches in background threads."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from csametric.data.records import Record
from csametric.data.transforms import Augmentation, augment, read_image

WORKERS = max(2, min(8, os.cpu_count() or 1))  # threads that decode; more than 8 only wait for one another

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(function: Callable[[Item], Result], items: Iterable[Item], workers: int = WORKERS) -> Iterator[Result]:
    """Yield `function(item)` for each item in order while threads compute the next few.

    Args:
        function: called in a thread; its exceptions are raised here.
        items: taken one by one, `workers` ahead of the results.
        workers: number of threads.

    Examples:
        >>> list(prefetch(abs, [-3, 1, -2]))
        [3, 1, 2]
    """
    pool = ThreadPoolExecutor(workers)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_batches(items: Sequence[Any] | NDArray, size: int) -> list[Any]:
    """Cut a sequence into slices of `size` items; the last one may be shorter.

    Examples:
        >>> in_batches("abcde", 2)
        ['ab', 'cd', 'e']
    """
    return [items[start : start + size] for start in range(0, len(items), size)]


class ImageBatch(NamedTuple):
    """A batch of training images with their classes."""

    images: NDArray  # uint8 (N, H, W, 3)
    classes: NDArray  # int64 (N,)
    records: Sequence[Record]  # the N files that were read


def image_batch(
    records: Sequence[Record],
    classes: NDArray,
    *,
    height: int,
    width: int,
    augmentation: Augmentation,
    seed: tuple[int, ...],
) -> ImageBatch:
    """Read and augment the images of a training batch.

    Args:
        records: the N images.
        classes: (N,), the class of each.
        height: of the resized images, pixels.
        width: of the resized images, pixels.
        augmentation: the random changes.
        seed: image i draws from the generator seeded with (*seed, i), so a batch depends on nothing else.

    Raises:
        UserError: an image is missing or cannot be decoded.
    """
    images = [
        augment(read_image(record.path, height, width), augmentation, np.random.default_rng((*seed, index)))
        for index, record in enumerate(records)
    ]
    return ImageBatch(np.stack(images), classes, records)


def read_images(records: Sequence[Record], height: int, width: int) -> NDArray:
    """Read and resize images without augmentation.

    Returns:
        uint8 (N, height, width, 3).

    Raises:
        UserError: an image is missing or cannot be decoded.
    """
    return np.stack([read_image(record.path, height, width) for record in records])
