"""The COLMAP database holds the matched pair; COLMAP itself reads it, if installed."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from csametric.errors import UserError
from csametric.evaluation.homography import transfer
from csametric.matching.colmap import MAX_IMAGES, image_names, write_colmap_database
from csametric.matching.descriptors import classical_descriptor
from csametric.matching.photographs import MatchSettings, match_many
from tests.matching.scenes import write_pair


@pytest.fixture
def matched(tmp_path):
    write_pair(tmp_path)
    return list(match_many([(tmp_path / "b.png", tmp_path / "a.png")], classical_descriptor("sift"), MatchSettings()))


def test_the_database_holds_the_matched_pair(matched, tmp_path):
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
        pair_id, rows, blob = database.execute("SELECT pair_id, rows, data FROM matches").fetchone()
        assert pair_id == MAX_IMAGES + 2
        np.testing.assert_array_equal(np.frombuffer(blob, np.uint32).reshape(rows, 2), pair.matches.pairs)
        rows, configuration, homography = database.execute("SELECT rows, config, H FROM two_view_geometries").fetchone()
        assert (rows, configuration) == (pair.geometry.inliers.sum(), 6)
        mapped = transfer(np.frombuffer(homography).reshape(3, 3), pair.from_points + 0.5)
        np.testing.assert_allclose(mapped, transfer(pair.geometry.matrix, pair.from_points) + 0.5, atol=1e-6)


def test_a_pair_listed_in_both_orders_is_refused(matched, tmp_path):
    both_orders = list(
        match_many(
            [(tmp_path / "a.png", tmp_path / "b.png"), (tmp_path / "b.png", tmp_path / "a.png")],
            classical_descriptor("sift"),
            MatchSettings(),
        )
    )
    with pytest.raises(UserError, match="each pair once"):
        write_colmap_database(tmp_path / "twice.db", both_orders)
    assert not list(tmp_path.glob("*twice.db*"))


def test_an_existing_file_is_not_overwritten(matched, tmp_path):
    (tmp_path / "database.db").write_text("precious")
    with pytest.raises(UserError, match="already exists; choose another file"):
        write_colmap_database(tmp_path / "database.db", matched)
    assert (tmp_path / "database.db").read_text() == "precious"


def test_colmap_reads_the_database(matched, tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    write_colmap_database(tmp_path / "database.db", matched)
    database = pycolmap.Database.open(str(tmp_path / "database.db"))
    assert database.num_images() == 2
    assert len(database.read_keypoints(1)) == len(matched[0].first.points)
    np.testing.assert_array_equal(database.read_matches(1, 2), matched[0].matches.pairs)


def test_names_are_relative_to_the_image_path(tmp_path):
    (tmp_path / "left").mkdir()
    write_pair(tmp_path)
    (tmp_path / "a.png").rename(tmp_path / "left" / "1.png")
    (tmp_path / "right").mkdir()
    (tmp_path / "b.png").rename(tmp_path / "right" / "1.png")
    pairs = list(
        match_many([(tmp_path / "left" / "1.png", tmp_path / "right" / "1.png")], classical_descriptor("sift"), MatchSettings())
    )
    write_colmap_database(tmp_path / "common.db", pairs)
    write_colmap_database(tmp_path / "given.db", pairs, root=tmp_path.parent)
    names = []
    for name in ("common", "given"):
        with sqlite3.connect(tmp_path / f"{name}.db") as database:
            names += [row for (row,) in database.execute("SELECT name FROM images ORDER BY image_id")]
    assert names == ["left/1.png", "right/1.png", f"{tmp_path.name}/left/1.png", f"{tmp_path.name}/right/1.png"]
    with pytest.raises(UserError, match=r"lies outside .*left; name a folder that holds all photographs"):
        write_colmap_database(tmp_path / "outside.db", pairs, root=tmp_path / "left")


def test_a_name_that_is_not_utf8_is_refused():
    with pytest.raises(UserError, match=r"the name of scene/\\udcff.png is not UTF-8"):
        image_names([Path("scene/\udcff.png")], Path("scene"))
