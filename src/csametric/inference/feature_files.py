"""Features of any number of image files, written to one file in bounded memory; an interrupted call resumes.

The files are embedded in chunks. A finished chunk is kept in the folder `.NAME.parts` beside the output until all are finished,
under a digest of everything that its features depend on. Processes share the chunks.
"""

import hashlib
import io
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csametric.data.loading import in_batches, prefetch
from csametric.data.transforms import read_image
from csametric.errors import UserError, printable
from csametric.files import lock_folder, write_atomically, write_text
from csametric.inference.images import EMBED_BATCH, ImageEmbedder
from csametric.progress import show_progress

SUFFIXES = (".npy", ".parquet")  # of files that `write_features` writes
CHUNK = 64 * EMBED_BATCH  # images whose features are in memory at once


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """What to write for each image; see `ImageEmbedder.embed`."""

    flip: bool = False
    dimensions: int | None = None
    whiten: bool = False
    fp16: bool = False


class Share(NamedTuple):
    """The part of the work that this process does, if several share it."""

    rank: int = 0
    processes: int = 1
    wait: Callable[[], object] = lambda: None  # a barrier: returns once all processes have called it


class WrittenFeatures(NamedTuple):
    """What was written."""

    images: int
    dimensions: int
    problems: list[str]  # why the other files could not be read, one sentence per file
    per_second: float  # images that this process embedded; 0 if it embedded none


def write_features(
    model: ImageEmbedder, root: Path, paths: Sequence[Path], out: Path, options: FeatureOptions, share: Share | None = None
) -> WrittenFeatures:
    """Embed image files and write their features; files that cannot be read are skipped.

    Args:
        model: as returned by `load`.
        root: the folder to which names are relative.
        paths: the images, at least one.
        out: ends in .npy, with the names in a .txt beside it, one per line; or in .parquet, with columns path and features.
        options: what to write for each image.
        share: the part of this process, if several share the work; the first one writes the file.

    Raises:
        UserError: no file can be read, pyarrow is missing for .parquet, or fewer dimensions were fitted.
        BusyError: another call is writing the same file.
    """
    if out.suffix == ".parquet":
        _import_parquet()
    if options.dimensions is not None:
        model.compact_for(options.dimensions)  # raises if there are fewer
    share = share or Share()
    folder = out.with_name(f".{out.name}.parts")
    digest = _model_digest(model, options)
    chunks = in_batches(paths, CHUNK)
    parts = [folder / f"{_chunk_digest(digest, root, chunk)}.npz" for chunk in chunks]
    if share.rank == 0:
        with lock_folder(folder):  # against another call for the same file
            rate = _write_parts(model, root, chunks, parts, options, share)
            share.wait()
            written = _assemble(out, parts)
            shutil.rmtree(folder)
    else:
        rate = _write_parts(model, root, chunks, parts, options, share)
        share.wait()
        written = WrittenFeatures(0, 0, [], 0.0)
    return written._replace(per_second=rate)


def _write_parts(
    model: ImageEmbedder,
    root: Path,
    chunks: Sequence[Sequence[Path]],
    parts: Sequence[Path],
    options: FeatureOptions,
    share: Share,
) -> float:
    """Embed this process's share of the chunks that are left; returns images per second."""
    height, width = model.experiment.data.height, model.experiment.data.width
    left = [number for number in range(share.rank, len(chunks), share.processes) if not parts[number].is_file()]
    batches = [(number, batch) for number in left for batch in in_batches(chunks[number], EMBED_BATCH)]

    def read(numbered: tuple[int, Sequence[Path]]) -> tuple[int, Sequence[Path], list[NDArray | str]]:
        number, batch = numbered
        return number, batch, [_read_or_explain(path, height, width) for path in batch]

    started = time.perf_counter()
    contents = show_progress(prefetch(read, batches), "embedding", len(batches), enabled=share.rank == 0)
    for number, group in groupby(contents, key=lambda content: content[0]):
        names: list[str] = []
        features: list[NDArray] = []
        problems: list[str] = []
        for _, batch, images_or_problems in group:
            images = [image for image in images_or_problems if not isinstance(image, str)]
            problems += [problem for problem in images_or_problems if isinstance(problem, str)]
            pairs = zip(batch, images_or_problems, strict=True)
            names += [path.relative_to(root).as_posix() for path, image in pairs if not isinstance(image, str)]
            if images:
                embedded = model.embed(np.stack(images), options.flip, options.dimensions, options.whiten)
                features.append(embedded.numpy().astype(np.float16 if options.fp16 else np.float32, copy=False))
        _write_part(parts[number], names, features, problems)
    embedded_images = sum(len(batch) for _, batch in batches)
    return embedded_images / (time.perf_counter() - started) if embedded_images else 0.0


def _read_or_explain(path: Path, height: int, width: int) -> NDArray | str:
    """An image, or why it cannot be read."""
    try:
        return read_image(path, height, width)
    except UserError as error:
        return str(error)


def _write_part(path: Path, names: Sequence[str], features: Sequence[NDArray], problems: Sequence[str]) -> None:
    content = io.BytesIO()
    rows = np.concatenate(features) if features else np.zeros((0, 0), np.float32)
    about = {
        "names": [printable(name) for name in names],
        "problems": list(problems),
        "dimensions": rows.shape[1],
        "type": rows.dtype.name,
    }
    np.savez(content, features=rows, about=np.frombuffer(json.dumps(about).encode(), np.uint8))
    write_atomically(path, lambda out: out.write(content.getbuffer()))


class _About(NamedTuple):
    """What a finished chunk holds, without its features."""

    names: list[str]
    problems: list[str]
    dimensions: int
    type: str  # of the features' numbers


def _read_about(part: Path) -> _About:
    with np.load(part, allow_pickle=False) as arrays:
        return _About(**json.loads(arrays["about"].tobytes()))


def _read_features(part: Path) -> NDArray:
    with np.load(part, allow_pickle=False) as arrays:
        return arrays["features"]


def _assemble(out: Path, parts: Sequence[Path]) -> WrittenFeatures:
    """Join the parts into one file, the features of one part in memory at a time."""
    about = {part: _read_about(part) for part in parts}
    problems = [problem for part in about.values() for problem in part.problems]
    filled = {path: part for path, part in about.items() if part.names}
    if not filled:
        raise UserError(f"none of the {len(problems):,} images can be read ({problems[0]})")
    write = _write_npy if out.suffix == ".npy" else _write_parquet
    write(out, filled)
    first = next(iter(filled.values()))
    return WrittenFeatures(sum(len(part.names) for part in filled.values()), first.dimensions, problems, 0.0)


def _write_npy(out: Path, parts: Mapping[Path, _About]) -> None:
    names = [name for part in parts.values() for name in part.names]
    first = next(iter(parts.values()))
    shape, dtype = (len(names), first.dimensions), np.dtype(first.type)

    def write(file: BinaryIO) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(_read_features(part)).data)

    write_atomically(out, write)
    write_text(out.with_suffix(".txt"), "".join(f"{name}\n" for name in names))


def _write_parquet(out: Path, parts: Mapping[Path, _About]) -> None:
    pyarrow, parquet = _import_parquet()

    def write(file: BinaryIO) -> None:
        tables = (pyarrow.table({"path": part.names, "features": list(_read_features(path))}) for path, part in parts.items())
        first = next(tables)
        with parquet.ParquetWriter(file, first.schema) as writer:
            for table in chain([first], tables):
                writer.write_table(table)

    write_atomically(out, write)


def _import_parquet() -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError("writing .parquet needs pyarrow; pip install 'csametric[parquet]', or write .npy") from error
    return pyarrow, parquet


def _model_digest(model: ImageEmbedder, options: FeatureOptions) -> str:
    """A digest of everything that features depend on apart from the files."""
    about = [asdict(options), model.precision.name, model.engine.name, model.fingerprint(options.dimensions)]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _chunk_digest(model_digest: str, root: Path, chunk: Sequence[Path]) -> str:
    """A digest of the model and of the names, sizes and times of the files of a chunk."""
    files = []
    for path in chunk:
        status = path.stat()
        files.append((path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(repr((model_digest, files)).encode(errors="surrogateescape")).hexdigest()[:32]
