"""The COLMAP database: its tables, its numbers, and what COLMAP itself reads where it is there."""

import sqlite3

import numpy as np
import pytest

from csametric.errors import UserError
from csametric.evaluation.homography import transfer
from csametric.matching.colmap import MOST_IMAGES, write_colmap_database
from csametric.matching.descriptors import classical_descriptor
from csametric.matching.photographs import MatchSettings, match_many
from tests.matching.scenes import write_pair


@pytest.fixture
def matched(tmp_path):
    write_pair(tmp_path)
    both = tmp_path / "b.png", tmp_path / "a.png"
    return list(match_many([both, both[::-1]][:1], classical_descriptor("sift"), MatchSettings()))


def test_the_numbers_are_those_of_the_pair(matched, tmp_path):
    write_colmap_database(tmp_path / "database.db", matched)
    pair = matched[0]
    with sqlite3.connect(tmp_path / "database.db") as database:
        images = dict(database.execute("SELECT image_id, name FROM images"))
        assert images == {1: "b.png", 2: "a.png"}
        model, width, height, blob = database.execute("SELECT model, width, height, params FROM cameras").fetchone()
        assert (model, width, height) == (2, 480, 360)
        np.testing.assert_allclose(np.frombuffer(blob), [576, 240, 180, 0])
        rows, columns, blob = database.execute("SELECT rows, cols, data FROM keypoints WHERE image_id = 1").fetchone()
        keypoints = np.frombuffer(blob, np.float32).reshape(rows, columns)
        np.testing.assert_allclose(keypoints[:, :2], pair.first.points + 0.5, atol=1e-3)
        number, rows, blob = database.execute("SELECT pair_id, rows, data FROM matches").fetchone()
        assert number == MOST_IMAGES + 2
        np.testing.assert_array_equal(np.frombuffer(blob, np.uint32).reshape(rows, 2), pair.matches.pairs)
        rows, kind, homography = database.execute("SELECT rows, config, H FROM two_view_geometries").fetchone()
        assert (rows, kind) == (pair.geometry.inliers.sum(), 6)
        there = transfer(np.frombuffer(homography).reshape(3, 3), pair.from_points + 0.5)
        np.testing.assert_allclose(there, transfer(pair.geometry.matrix, pair.from_points) + 0.5, atol=1e-6)


def test_pairs_in_the_other_order_are_turned_round(matched, tmp_path):
    turned = list(
        match_many(
            [(tmp_path / "b.png", tmp_path / "a.png"), (tmp_path / "a.png", tmp_path / "b.png")][::-1],
            classical_descriptor("sift"),
            MatchSettings(),
        )
    )
    with pytest.raises(UserError, match="each pair once"):
        write_colmap_database(tmp_path / "twice.db", turned)
    assert not list(tmp_path.glob("*twice.db*"))


def test_nothing_is_overwritten(matched, tmp_path):
    (tmp_path / "database.db").write_text("precious")
    with pytest.raises(UserError, match="already there"):
        write_colmap_database(tmp_path / "database.db", matched)
    assert (tmp_path / "database.db").read_text() == "precious"


def test_colmap_reads_it(matched, tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    write_colmap_database(tmp_path / "database.db", matched)
    database = pycolmap.Database.open(str(tmp_path / "database.db"))
    assert database.num_images() == 2
    assert len(database.read_keypoints(1)) == len(matched[0].first.points)
    np.testing.assert_array_equal(database.read_matches(1, 2), matched[0].matches.pairs)
