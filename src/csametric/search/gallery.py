"""A gallery: features of images with what is known about each image, searched by distance.

Legend: N images or queries, D dimensions of a feature.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csametric.data.loading import in_batches
from csametric.errors import UserError
from csametric.inference.images import ImageEmbedder
from csametric.search import milvus
from csametric.search.rows import FIELDS, Hit, hit_of, rows_of, schema

NAME = "images"  # of the collection
VERSION = 1
DIMENSIONS = 512  # of a new gallery
ABOUT = "csametric"  # the property of the collection that says which features it holds
MESSAGE_BYTES = 16 * 2**20  # of the features in one message; Milvus takes 64 MiB
QUERIES = 256  # searched in one message
HNSW_ROWS = 100_000  # from here on an index answers sooner than a comparison with all rows
HNSW = {"M": 32, "efConstruction": 200}


class Gallery:
    """Features of images in a file or on a Milvus server, the same calls for both.

    A file can be opened by one process at a time. Distances are Euclidean. Below 100,000 rows every search compares with all
    rows; above, an HNSW index finds almost all of the nearest.

    Args:
        uri: a file whose name ends in .db, or the address of a server, `http://HOST:19530`.
        dimensions: D, of the features; None for those that the gallery holds, and for 512 in a new one.
        model: the fingerprint of the model whose features it holds (`ImageEmbedder.fingerprint`); "" if unknown.
        run: the run or bundle of this model, which a new gallery remembers.
        name: of the collection; a server can hold several galleries.
        create: whether to create the gallery if it is missing.

    Raises:
        UserError: it cannot be opened, is missing, or holds features of another model or size.
        BusyError: another process has opened the file.

    Examples:
        >>> from tempfile import mkdtemp
        >>> with Gallery(f"{mkdtemp()}/people.db", dimensions=2) as gallery:
        ...     gallery.add_features([[0, 0], [3, 4]], paths=["a.jpg", "b.jpg"], cameras=[1, 2])
        ...     hits = gallery.search_features([[0, 0]], k=1, where="camera != 1")
        >>> hits[0][0].path, hits[0][0].distance
        ('b.jpg', 5.0)
    """

    def __init__(
        self,
        uri: str | Path,
        dimensions: int | None = None,
        *,
        model: str = "",
        run: str | Path = "",
        name: str = NAME,
        create: bool = True,
    ) -> None:
        self.uri, self.name = str(uri), name
        if milvus.is_file(self.uri) and not create and not Path(self.uri).exists():
            raise UserError(f"the gallery {uri} does not exist; make one with `csametric index`")
        self._client = milvus.connect(self.uri)
        try:
            self.about = self._open(dimensions, model, str(run), create)
        except BaseException:
            self.close()
            raise
        self.dimensions, self.model, self.run = (self.about[name] for name in ("dimensions", "model", "run"))

    def _open(self, dimensions: int | None, model: str, run: str, create: bool) -> dict[str, Any]:
        """Find or create the collection, load it, and return what it says about itself."""
        self._finish_erasing()
        with milvus.explained():
            is_new = not self._client.has_collection(self.name)
        if is_new and not create:
            raise UserError(f"{self.uri} holds no gallery {self.name}; make one with `csametric index`")
        if is_new:
            self._create(self.name, {"version": VERSION, "model": model, "run": run, "dimensions": dimensions or DIMENSIONS})
        about = self._read_about()
        if dimensions not in (None, about["dimensions"]):
            raise UserError(
                f"{self.uri} holds features of {about['dimensions']:,} dimensions, not {dimensions:,}; use another gallery"
            )
        if model and model != about["model"]:
            raise UserError(
                f"{self.uri} holds features of another model; use the run that it was indexed with, or another gallery"
            )
        with milvus.explained():
            self._client.load_collection(self.name)
        return about

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the gallery; a file can then be opened by another process."""
        self._client.close()
        if milvus.is_file(self.uri):
            milvus.release(self.uri)

    def add_features(
        self,
        features: ArrayLike,
        paths: Sequence[str],
        identities: Sequence[int | None] | None = None,
        cameras: Sequence[int | None] | None = None,
        times: Sequence[float | None] | None = None,
        boxes: Sequence[Sequence[float] | None] | None = None,
        digests: Sequence[str] | None = None,
    ) -> None:
        """Add features; rows of the same path and box are replaced. They survive a kill once this returns.

        Args:
            features: (N, D).
            paths: of the N images.
            identities: numbers, None where unknown.
            cameras: numbers, None where unknown.
            times: seconds, None where unknown.
            boxes: x, y, width and height in pixels of the part of the image that was embedded, None for all of it.
            digests: SHA-256 of each file.

        Raises:
            UserError: a wrong number of values, features of another size or not finite, or a path that is too long.
        """
        features_ND = np.asarray(features, np.float32)
        count = len(paths)
        if features_ND.shape != (count, self.dimensions):
            raise UserError(f"features must be ({count}, {self.dimensions}), one row per path, got {features_ND.shape}")
        if not np.isfinite(features_ND).all():
            raise UserError("some features are NaN or infinite; embed the images again")
        columns = {
            "path": paths,
            "identity": identities or [None] * count,
            "camera": cameras or [None] * count,
            "time": times or [None] * count,
            "box": boxes or [None] * count,
            "digest": digests or [""] * count,
        }
        for name, values in columns.items():
            if len(values) != count:
                raise UserError(f"need one {name} per path, got {len(values)} for {count} paths")
        rows = rows_of(features_ND, columns)
        with milvus.explained():
            for batch in in_batches(rows, max(1, MESSAGE_BYTES // (4 * self.dimensions + 1024))):
                self._client.upsert(self.name, batch)
            self._client.flush(self.name)
        self._choose_index()

    def search_features(self, features: ArrayLike, k: int = 10, where: str = "") -> list[list[Hit]]:
        """Find the nearest images to each feature.

        Args:
            features: (N, D).
            k: the number of images to find, at least 1.
            where: a condition on the rows in Milvus's language, e.g. "camera != 3 and time > 60"; an identity or camera that
                is unknown fulfils no comparison.

        Returns:
            One list per feature, the nearest first; shorter than k if fewer rows fulfil the condition.

        Raises:
            UserError: features of another size, k below 1, or a condition that cannot be used.
        """
        features_ND = np.asarray(features, np.float32)
        if features_ND.ndim != 2 or features_ND.shape[1] != self.dimensions:
            raise UserError(f"features must be (N, {self.dimensions}), got {features_ND.shape}")
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}")
        found: list[list[Hit]] = []
        with milvus.explained(where):
            for batch in in_batches(features_ND, QUERIES):
                answers = self._client.search(
                    self.name,
                    data=list(batch),
                    limit=k,
                    filter=where,
                    output_fields=list(FIELDS),
                    search_params={"metric_type": "L2", "params": {"ef": max(128, 4 * k)}},
                )
                found += [[hit_of(answer["entity"], answer["distance"], answer["key"]) for answer in hits] for hits in answers]
        return found

    def add(
        self,
        images: Sequence[str | Path],
        model: ImageEmbedder,
        identities: Sequence[int | None] | None = None,
        cameras: Sequence[int | None] | None = None,
        times: Sequence[float | None] | None = None,
    ) -> None:
        """Embed image files and add their features; see `add_features`.

        Raises:
            UserError: what `ImageEmbedder.embed` and `add_features` refuse, or another model.
        """
        self.check_model(model)
        features = model.embed(images, dimensions=self._compact_dimensions(model)).numpy()
        self.add_features(features, [str(Path(path).absolute()) for path in images], identities, cameras, times)

    def search(
        self, images: Sequence[str | Path] | ArrayLike, model: ImageEmbedder, k: int = 10, where: str = ""
    ) -> list[list[Hit]]:
        """Embed images and find the nearest ones of the gallery to each; see `search_features`.

        Raises:
            UserError: what `ImageEmbedder.embed` and `search_features` refuse, or another model.
        """
        self.check_model(model)
        return self.search_features(model.embed(images, dimensions=self._compact_dimensions(model)).numpy(), k, where)

    def count(self, where: str = "") -> int:
        """The number of rows that fulfil a condition, or of all.

        Raises:
            UserError: a condition that cannot be used.
        """
        with milvus.explained(where):
            return int(self._client.query(self.name, filter=where, output_fields=["count(*)"])[0]["count(*)"])

    def remove(self, where: str) -> int:
        """Remove the rows that fulfil a condition, and erase them from a file.

        A server erases them later, when it compacts its segments.

        Returns:
            How many rows were removed.

        Raises:
            UserError: a condition that is empty or cannot be used.
        """
        if not where.strip():
            raise UserError("name a condition, e.g. identity == 7; remove never empties a gallery")
        number = self.count(where)
        if number:
            with milvus.explained(where):
                self._client.delete(self.name, filter=where)
                self._client.flush(self.name)
            self._erase()
        return number

    def digests(self, keys: Sequence[str]) -> dict[str, str]:
        """The digests of the rows with these keys, of those that are there."""
        found: dict[str, str] = {}
        with milvus.explained():
            for batch in in_batches(keys, 1000):
                found |= {row["key"]: row["digest"] for row in self._client.get(self.name, batch, output_fields=["digest"])}
        return found

    def rows(self, where: str = "", batch: int = 1000) -> Iterator[list[tuple[Hit, NDArray]]]:
        """All rows that fulfil a condition with their features, some at a time; their distance is 0.

        Raises:
            UserError: a condition that cannot be used.
        """
        with milvus.explained(where):
            found = self._client.query_iterator(self.name, batch, filter=where, output_fields=[*FIELDS, "feature"])
            while rows := found.next():
                yield [(hit_of(row, 0.0, row["key"]), np.asarray(row["feature"], np.float32)) for row in rows]
            found.close()

    def features(self, keys: Sequence[str]) -> NDArray:
        """The features of the rows with these keys, in their order, float32 (N, D).

        Raises:
            KeyError: a row is missing.
        """
        found: dict[str, Any] = {}
        with milvus.explained():
            for batch in in_batches(keys, 1000):
                found |= {row["key"]: row["feature"] for row in self._client.get(self.name, batch, output_fields=["feature"])}
        return np.asarray([found[key] for key in keys], np.float32).reshape(-1, self.dimensions)

    def check_model(self, model: ImageEmbedder) -> None:
        """Check that the features here are of this model.

        Raises:
            UserError: they are of another one.
        """
        if self.model != model.fingerprint(self._compact_dimensions(model)):
            raise UserError(
                f"{self.uri} holds features of another model; use the run that it was indexed with, or another gallery"
            )

    def _compact_dimensions(self, model: ImageEmbedder) -> int | None:
        return None if self.dimensions == model.model.dimensions else self.dimensions

    def _create(self, name: str, about: dict[str, Any]) -> None:
        with milvus.explained():
            self._client.create_collection(
                name,
                schema=schema(about["dimensions"]),
                index_params=self._index("FLAT"),
                properties={ABOUT: json.dumps(about)},
            )

    def _index(self, kind: str) -> Any:
        parameters = self._client.prepare_index_params()
        parameters.add_index("feature", index_type=kind, metric_type="L2", params=HNSW if kind == "HNSW" else {})
        return parameters

    def _choose_index(self) -> None:
        """Build an HNSW index once there are many rows."""
        with milvus.explained():
            kind = self._client.describe_index(self.name, "feature")["index_type"]
            if kind == "FLAT" and self._client.get_collection_stats(self.name)["row_count"] >= HNSW_ROWS:
                self._client.release_collection(self.name)
                self._client.drop_index(self.name, "feature")
                self._client.create_index(self.name, self._index("HNSW"))
            self._client.load_collection(self.name)

    def _read_about(self) -> dict[str, Any]:
        with milvus.explained():
            properties = self._client.describe_collection(self.name).get("properties", {})
        try:
            about = json.loads(properties[ABOUT])
        except (KeyError, ValueError) as error:
            raise UserError(f"{self.name} in {self.uri} was not made by csametric; choose another name") from error
        if about.get("version") != VERSION:
            raise UserError(f"{self.uri} has another version ({about.get('version')}); index again into another file")
        return about

    @property
    def _new_name(self) -> str:
        return f"{self.name}_without_removed"

    def _erase(self) -> None:
        """Erase removed rows from a file, whose own compaction would keep them: copy the others and drop the collection."""
        if not milvus.is_file(self.uri):
            with milvus.explained():
                self._client.compact(self.name)
            return
        self._create(self._new_name, self.about)
        for rows in self.rows():
            batch = [{**vars(hit), "feature": feature} for hit, feature in rows]
            for row in batch:
                del row["distance"]
            with milvus.explained():
                self._client.insert(self._new_name, batch)
        with milvus.explained():
            self._client.flush(self._new_name)
            self._client.drop_collection(self.name)
            self._client.rename_collection(self._new_name, self.name)
        self._choose_index()

    def _finish_erasing(self) -> None:
        """Finish or undo an erasure that a kill interrupted."""
        with milvus.explained():
            if not self._client.has_collection(self._new_name):
                return
            if self._client.has_collection(self.name):
                self._client.drop_collection(self._new_name)
            else:
                self._client.rename_collection(self._new_name, self.name)
