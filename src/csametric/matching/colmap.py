"""Export of matches as a COLMAP database (Schoenberger and Frahm 2016), for `colmap mapper` or `colmap exhaustive_matcher`.

The tables are those of COLMAP 3. Each photograph gets its own camera: SIMPLE_RADIAL with a focal length of 1.2 times the
longer side, COLMAP's default. COLMAP's origin is the corner of the first pixel, ours is its centre.
"""

import os
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csametric.errors import UserError
from csametric.files import temporary_path
from csametric.matching.photographs import DescribedPhoto, MatchedPair

SIMPLE_RADIAL = 2
FOCAL_OVER_SIDE = 1.2
MAX_IMAGES = 2_147_483_647
UNCALIBRATED, PLANAR_OR_PANORAMIC = 3, 6  # COLMAP's configurations of two-view geometry
TABLES = f"""
CREATE TABLE cameras (camera_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, model INTEGER NOT NULL, width INTEGER NOT NULL,
    height INTEGER NOT NULL, params BLOB, prior_focal_length INTEGER NOT NULL);
CREATE TABLE images (image_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL UNIQUE, camera_id INTEGER NOT NULL,
    prior_qw REAL, prior_qx REAL, prior_qy REAL, prior_qz REAL, prior_tx REAL, prior_ty REAL, prior_tz REAL,
    CONSTRAINT image_id_check CHECK(image_id >= 0 and image_id < {MAX_IMAGES}),
    FOREIGN KEY(camera_id) REFERENCES cameras(camera_id));
CREATE TABLE keypoints (image_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL, data BLOB,
    FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE TABLE descriptors (image_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL, data BLOB,
    FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE TABLE matches (pair_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL, data BLOB);
CREATE TABLE two_view_geometries (pair_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL, data BLOB,
    config INTEGER NOT NULL, F BLOB, E BLOB, H BLOB, qvec BLOB, tvec BLOB);
CREATE UNIQUE INDEX index_name ON images(name);
"""


def common_folder(photos: Collection[Path]) -> Path:
    """The innermost folder that holds all photographs.

    Examples:
        >>> common_folder([Path("/scene/left/1.jpg"), Path("/scene/right/1.jpg")]).as_posix()
        '/scene'
    """
    return Path(os.path.commonpath([photo.absolute().parent for photo in photos]))


def image_names(photos: Collection[Path], root: Path) -> dict[Path, str]:
    """The names by which COLMAP knows photographs: their paths relative to its image path, with slashes.

    Raises:
        UserError: a photograph lies outside the root, two are the same file, or a name is not UTF-8.

    Examples:
        >>> image_names([Path("scene/left/1.jpg")], Path("scene"))
        {PosixPath('scene/left/1.jpg'): 'left/1.jpg'}
    """
    names = {photo: Path(os.path.relpath(photo, root)).as_posix() for photo in photos}
    for photo, name in names.items():
        if name.startswith("../"):
            raise UserError(f"{photo} lies outside {root}; name a folder that holds all photographs (--image-root)")
        if any("\ud800" <= character <= "\udfff" for character in name):  # bytes that Python could not decode
            raise UserError(f"the name of {photo} is not UTF-8, which COLMAP needs; rename the file")
    if len(set(names.values())) < len(names):
        raise UserError("a photograph is named in two ways; name each by one path")
    return names


def check_colmap(path: Path, photos: Collection[Path], root: Path) -> None:
    """Check that a database can be written, before any work is done.

    Raises:
        UserError: the file exists, or a photograph cannot be named (see `image_names`).
    """
    if path.exists():
        raise UserError(f"{path} already exists; choose another file or remove it")
    image_names(photos, root)


def write_colmap_database(path: Path, pairs: Sequence[MatchedPair], root: Path | None = None) -> None:
    """Write photographs, keypoints, matches and two-view geometries, atomically.

    Args:
        path: the file to create.
        pairs: each at most once, in one order.
        root: COLMAP's image path, which names are relative to; by default the innermost folder that holds all photographs.

    Raises:
        UserError: the file exists, a photograph cannot be named (see `image_names`), a pair occurs twice, or the file cannot
            be written.
    """
    photos = {photo.path: photo for pair in pairs for photo in (pair.first, pair.second)}
    root = root or common_folder(photos)
    check_colmap(path, photos, root)
    names = image_names(photos, root)
    try:
        with temporary_path(path) as new:
            with closing(sqlite3.connect(new)) as database, database:
                database.executescript(TABLES)
                image_ids = {photo.path: _add_photo(database, photo, names[photo.path]) for photo in photos.values()}
                for pair in pairs:
                    _add_pair(database, image_ids[pair.first.path], image_ids[pair.second.path], pair)
            new.replace(path)
    except sqlite3.Error as error:
        raise UserError(f"cannot write {path} ({error}); list each pair once, or choose another file") from error


def _add_photo(database: sqlite3.Connection, photo: DescribedPhoto, name: str) -> int:
    width, height = photo.size
    parameters = np.array([FOCAL_OVER_SIDE * max(width, height), width / 2, height / 2, 0.0])
    camera = database.execute(
        "INSERT INTO cameras (model, width, height, params, prior_focal_length) VALUES (?, ?, ?, ?, 0)",
        (SIMPLE_RADIAL, width, height, parameters.tobytes()),
    ).lastrowid
    image_id = database.execute("INSERT INTO images (name, camera_id) VALUES (?, ?)", (name, camera)).lastrowid
    axes = photo.frames.axes * np.array(photo.scale)[:, None] / 2
    keypoints = np.hstack([photo.points + 0.5, axes.reshape(-1, 4)]).astype(np.float32)
    database.execute("INSERT INTO keypoints VALUES (?, ?, ?, ?)", (image_id, *keypoints.shape, keypoints.tobytes()))
    assert image_id is not None
    return image_id


def _add_pair(database: sqlite3.Connection, first: int, second: int, pair: MatchedPair) -> None:
    # COLMAP stores a pair with the smaller image id first
    is_swapped = first > second
    pair_id = min(first, second) * MAX_IMAGES + max(first, second)
    matches = pair.matches.pairs[:, ::-1] if is_swapped else pair.matches.pairs
    inliers = matches[pair.geometry.inliers]
    database.execute("INSERT INTO matches VALUES (?, ?, ?, ?)", (pair_id, len(matches), 2, _blob(matches)))
    if pair.geometry.matrix is None:
        return
    is_homography = pair.model == "homography"
    matrix = _with_corner_origin(pair.geometry.matrix, is_homography)
    if is_swapped:
        matrix = np.linalg.inv(matrix) if is_homography else matrix.T
    homography, fundamental = np.zeros((3, 3)), np.zeros((3, 3))
    if is_homography:
        configuration, homography = PLANAR_OR_PANORAMIC, matrix
    else:
        configuration, fundamental = UNCALIBRATED, matrix
    database.execute(
        "INSERT INTO two_view_geometries (pair_id, rows, cols, data, config, F, E, H) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            pair_id,
            len(inliers),
            2,
            _blob(inliers),
            configuration,
            fundamental.tobytes(),
            np.zeros((3, 3)).tobytes(),
            homography.tobytes(),
        ),
    )


def _blob(matches_R2: NDArray) -> bytes:
    return np.ascontiguousarray(matches_R2, np.uint32).tobytes()


def _with_corner_origin(matrix: NDArray, is_homography: bool) -> NDArray:
    """The matrix in COLMAP's coordinates, whose origin is the corner of the first pixel."""
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    back = np.linalg.inv(shift)
    return np.ascontiguousarray(shift @ matrix @ back if is_homography else back.T @ matrix @ back)
