"""Features of image files: embedding a list of files, and writing the features to a file."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from csametric.data.loading import in_batches, prefetch
from csametric.data.transforms import read_image
from csametric.errors import UserError, printable
from csametric.files import lock_folder, write_atomically, write_text
from csametric.inference.images import EMBED_BATCH, ImageEmbedder
from csametric.progress import show_progress

SUFFIXES = (".npy", ".parquet")  # of files that `write_features` writes


class EmbeddedFiles(NamedTuple):
    """The features of image files."""

    paths: list[Path]  # N files that could be read
    features: NDArray  # (N, D)
    problems: list[str]  # why the other files could not be read, one sentence per file


def embed_files(
    model: ImageEmbedder,
    paths: Sequence[Path],
    flip: bool = False,
    dimensions: int | None = None,
    whiten: bool = False,
    dtype: DTypeLike = np.float32,
) -> EmbeddedFiles:
    """Embed image files while a progress bar counts batches; files that cannot be read are skipped.

    Args:
        model: as returned by `load`.
        paths: of the images, at least one.
        flip: whether to average the features of each image and its mirror image.
        dimensions: of compact features; None for all.
        whiten: whether to whiten compact features.
        dtype: of the features.

    Raises:
        UserError: none of the files can be read, or more dimensions than were fitted.
    """
    height, width = model.experiment.data.height, model.experiment.data.width

    def read(batch: Sequence[Path]) -> list[NDArray | str]:
        return [_read_or_explain(path, height, width) for path in batch]

    batches = in_batches(paths, EMBED_BATCH)
    contents = show_progress(prefetch(read, batches), "embedding", len(batches), enabled=True)
    readable: list[Path] = []
    features: list[NDArray] = []
    problems: list[str] = []
    for batch, images_or_problems in zip(batches, contents, strict=True):
        images = []
        for path, content in zip(batch, images_or_problems, strict=True):
            if isinstance(content, str):
                problems.append(content)
            else:
                readable.append(path)
                images.append(content)
        if images:
            features.append(model.embed(np.stack(images), flip, dimensions, whiten).numpy().astype(dtype, copy=False))
    if not features:
        raise UserError(f"none of the {len(paths):,} images can be read ({problems[0]})")
    return EmbeddedFiles(readable, np.concatenate(features), problems)


def _read_or_explain(path: Path, height: int, width: int) -> NDArray | str:
    """An image, or why it cannot be read."""
    try:
        return read_image(path, height, width)
    except UserError as error:
        return str(error)


def write_features(path: Path, names: Sequence[str], features: NDArray) -> None:
    """Write features and the names of their images.

    Args:
        path: ends in .npy, with the names in a .txt beside it, one per line; or in .parquet, with columns path and features.
        names: N names.
        features: (N, D).

    Raises:
        UserError: .parquet without pyarrow.
    """
    if path.suffix == ".npy":
        serialised = io.BytesIO()
        np.save(serialised, features)
        with lock_folder(path.parent, wait=True):  # so that both files come from the same call
            write_atomically(path, lambda file: file.write(serialised.getbuffer()))
            write_text(path.with_suffix(".txt"), "".join(f"{printable(name)}\n" for name in names))
        return
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError("writing .parquet needs pyarrow; pip install 'csametric[parquet]', or write .npy") from error
    table = pyarrow.table({"path": [printable(name) for name in names], "features": list(features)})
    write_atomically(path, lambda file: parquet.write_table(table, file))
