"""Matches as a COLMAP database (Schoenberger and Frahm 2016), ready for `colmap mapper` or `colmap exhaustive_matcher`.

The tables are those of COLMAP 3. Each photograph gets a camera of its own: SIMPLE_RADIAL, focal length 1.2 times the longer
side, as COLMAP guesses it. Pixels of COLMAP begin at the corner of the first pixel, ours at its centre.
"""

import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csametric.errors import UserError
from csametric.files import aside
from csametric.matching.photographs import DescribedPhoto, MatchedPair

SIMPLE_RADIAL = 2
FOCAL_OVER_SIDE = 1.2
MOST_IMAGES = 2_147_483_647
UNCALIBRATED, PLANAR_OR_PANORAMIC = 3, 6  # COLMAP's kinds of two-view geometry
TABLES = f"""
CREATE TABLE cameras (camera_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, model INTEGER NOT NULL, width INTEGER NOT NULL,
    height INTEGER NOT NULL, params BLOB, prior_focal_length INTEGER NOT NULL);
CREATE TABLE images (image_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL UNIQUE, camera_id INTEGER NOT NULL,
    prior_qw REAL, prior_qx REAL, prior_qy REAL, prior_qz REAL, prior_tx REAL, prior_ty REAL, prior_tz REAL,
    CONSTRAINT image_id_check CHECK(image_id >= 0 and image_id < {MOST_IMAGES}),
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


def check_colmap(path: Path, photos: Collection[Path]) -> None:
    """Raises `UserError` where the file is already there, or two photographs share a name."""
    if path.exists():
        raise UserError(f"{path} is already there; name another file, or remove it")
    if len({photo.name for photo in photos}) < len(photos):
        raise UserError("two photographs share a file name, which COLMAP cannot tell apart; rename one")


def write_colmap_database(path: Path, pairs: Sequence[MatchedPair]) -> None:
    """Write photographs, keypoints, matches and two-view geometries; atomic.

    Raises:
        UserError: as `check_colmap`, a pair stands there twice, or the file cannot be written.
    """
    photos = {photo.path: photo for pair in pairs for photo in (pair.first, pair.second)}
    check_colmap(path, photos)
    try:
        with aside(path) as new:
            with closing(sqlite3.connect(new)) as database, database:
                database.executescript(TABLES)
                numbers = {photo.path: _add_photo(database, photo) for photo in photos.values()}
                for pair in pairs:
                    _add_pair(database, numbers[pair.first.path], numbers[pair.second.path], pair)
            new.replace(path)
    except sqlite3.Error as error:
        raise UserError(f"{path} cannot be written ({error}); name another file, and each pair once") from error


def _add_photo(database: sqlite3.Connection, photo: DescribedPhoto) -> int:
    width, height = photo.size
    parameters = np.array([FOCAL_OVER_SIDE * max(width, height), width / 2, height / 2, 0.0])
    camera = database.execute(
        "INSERT INTO cameras (model, width, height, params, prior_focal_length) VALUES (?, ?, ?, ?, 0)",
        (SIMPLE_RADIAL, width, height, parameters.tobytes()),
    ).lastrowid
    number = database.execute("INSERT INTO images (name, camera_id) VALUES (?, ?)", (photo.path.name, camera)).lastrowid
    axes = photo.frames.axes * np.array(photo.scale)[:, None] / 2
    keypoints = np.hstack([photo.points + 0.5, axes.reshape(-1, 4)]).astype(np.float32)
    database.execute("INSERT INTO keypoints VALUES (?, ?, ?, ?)", (number, *keypoints.shape, keypoints.tobytes()))
    assert number is not None
    return number


def _add_pair(database: sqlite3.Connection, first: int, second: int, pair: MatchedPair) -> None:
    swapped = first > second
    low, high = min(first, second), max(first, second)
    number = low * MOST_IMAGES + high
    matches = pair.matches.pairs[:, ::-1] if swapped else pair.matches.pairs
    agreeing = matches[pair.geometry.inliers]
    database.execute("INSERT INTO matches VALUES (?, ?, ?, ?)", (number, len(matches), 2, _blob(matches)))
    if pair.geometry.matrix is None:
        return
    matrix = _for_corners(pair.geometry.matrix, pair.model == "homography")
    if swapped:
        matrix = np.linalg.inv(matrix) if pair.model == "homography" else matrix.T
    homography, fundamental = (matrix, np.zeros((3, 3))) if pair.model == "homography" else (np.zeros((3, 3)), matrix)
    kind = PLANAR_OR_PANORAMIC if pair.model == "homography" else UNCALIBRATED
    database.execute(
        "INSERT INTO two_view_geometries (pair_id, rows, cols, data, config, F, E, H) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            len(agreeing),
            2,
            _blob(agreeing),
            kind,
            fundamental.tobytes(),
            np.zeros((3, 3)).tobytes(),
            homography.tobytes(),
        ),
    )


def _blob(matches_R2: NDArray) -> bytes:
    return np.ascontiguousarray(matches_R2, np.uint32).tobytes()


def _for_corners(matrix: NDArray, is_homography: bool) -> NDArray:
    """The same for pixels that are counted from the corner of the first one."""
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    back = np.linalg.inv(shift)
    return np.ascontiguousarray(shift @ matrix @ back if is_homography else back.T @ matrix @ back)
