"""The rows of a gallery: an image, what is known about it, and its feature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from csametric.errors import UserError

LONGEST_PATH = 4096  # bytes
FIELDS = ("path", "identity", "camera", "time", "box", "digest")


@dataclass(frozen=True, kw_only=True)
class Hit:
    """An image that a search found."""

    path: str
    distance: float  # Euclidean, lower is nearer
    identity: int | None
    camera: int | None
    time: float | None  # seconds
    box: tuple[float, ...] | None  # x, y, width, height in pixels, if the feature is of a part of the image
    digest: str  # SHA-256 of the file, or ""
    key: str  # of the row: the path, and the box if there is one


def schema(dimensions: int) -> Any:
    """The fields of a row, for Milvus."""
    from pymilvus import DataType, MilvusClient

    fields = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    fields.add_field("key", DataType.VARCHAR, max_length=LONGEST_PATH + 100, is_primary=True)
    fields.add_field("path", DataType.VARCHAR, max_length=LONGEST_PATH)
    fields.add_field("identity", DataType.INT64, nullable=True)
    fields.add_field("camera", DataType.INT64, nullable=True)
    fields.add_field("time", DataType.DOUBLE, nullable=True)
    fields.add_field("box", DataType.ARRAY, element_type=DataType.FLOAT, max_capacity=4, nullable=True)
    fields.add_field("digest", DataType.VARCHAR, max_length=64)
    fields.add_field("feature", DataType.FLOAT_VECTOR, dim=dimensions)
    return fields


def row_key(path: str, box: Sequence[float] | None = None) -> str:
    """What identifies a row: the path of its image, and the box if there is one.

    Examples:
        >>> row_key("a.jpg"), row_key("a.jpg", (1, 2, 30, 60))
        ('a.jpg', 'a.jpg#1,2,30,60')
    """
    return path if box is None else f"{path}#{','.join(f'{value:g}' for value in box)}"


def rows_of(features_ND: NDArray, columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Rows as Milvus stores them.

    Args:
        features_ND: (N, D).
        columns: N values of each of `FIELDS`.

    Raises:
        UserError: a path is too long.
    """
    by_row = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return [_row(feature_D, values) for feature_D, values in zip(features_ND, by_row, strict=True)]


def _row(feature: NDArray, values: dict[str, Any]) -> dict[str, Any]:
    """One row; Milvus knows only Python's own numbers."""
    path, box = values["path"], values["box"]
    if len(path.encode(errors="surrogateescape")) > LONGEST_PATH:
        raise UserError(f"a path of more than {LONGEST_PATH:,} bytes cannot be stored; move the image: {path}")
    return {
        "key": row_key(path, box),
        "path": path,
        "identity": None if values["identity"] is None else int(values["identity"]),
        "camera": None if values["camera"] is None else int(values["camera"]),
        "time": None if values["time"] is None else float(values["time"]),
        "box": None if box is None else [float(value) for value in box],
        "digest": values["digest"],
        "feature": feature,
    }


def hit_of(row: Mapping[str, Any], squared_distance: float, key: str) -> Hit:
    """The image of a row that was found."""
    box = row["box"]
    return Hit(
        path=row["path"],
        distance=float(max(squared_distance, 0.0)) ** 0.5,
        identity=row["identity"],
        camera=row["camera"],
        time=row["time"],
        box=None if box is None else tuple(box),
        digest=row["digest"],
        key=key,
    )
