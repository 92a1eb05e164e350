"""Files in, matches in the pixels of the files out; and what a user can do wrong."""

import json

import cv2
import numpy as np
import pytest

from csametric.errors import UserError
from csametric.evaluation.homography import corner_error, transfer, transfer_errors
from csametric.matching.descriptors import classical_descriptor, find_descriptor
from csametric.matching.photographs import (
    MatchSettings,
    all_pairs,
    describe_photo,
    find_photographs,
    match_many,
    match_photos,
    read_pairs,
    why_no_geometry,
)
from tests.matching.scenes import photograph, write_pair

SIFT = classical_descriptor("rootsift")


@pytest.mark.parametrize("max_side", [2048, 480])
def test_matches_and_homography_are_in_pixels_of_the_files(tmp_path, max_side):
    """At 480 both files are reduced to half; what comes out must not show it."""
    true = write_pair(tmp_path, factor=2)
    settings = MatchSettings(max_side=max_side)
    pair = next(match_many([(tmp_path / "a.png", tmp_path / "b.png")], SIFT, settings))
    agreeing = pair.geometry.inliers
    assert pair.first.scale == ((2, 2) if max_side == 480 else (1, 1))
    assert agreeing.sum() > 100
    errors = transfer_errors(true, pair.from_points[agreeing], pair.to_points[agreeing])
    assert np.median(errors) < 1
    assert corner_error(pair.geometry.matrix, true, 960, 720) < 2
    assert why_no_geometry(pair) == ""


def test_a_fundamental_matrix_is_in_pixels_of_the_files_too(tmp_path):
    write_pair(tmp_path, factor=2)
    settings = MatchSettings(max_side=480, model="fundamental")
    pair = next(match_many([(tmp_path / "a.png", tmp_path / "b.png")], SIFT, settings))
    ones = np.ones((len(pair.from_points), 1))
    lines = np.hstack([pair.from_points, ones]) @ pair.geometry.matrix.T
    residuals = np.abs((lines * np.hstack([pair.to_points, ones])).sum(1)) / np.linalg.norm(lines[:, :2], axis=1)
    assert np.median(residuals[pair.geometry.inliers]) < 2


def test_a_long_strip_is_reduced_by_its_own_scale_in_x_and_y(tmp_path):
    wide = np.hstack([photograph(203, 750, seed) for seed in range(4)])
    cv2.imwrite(str(tmp_path / "a.png"), wide)
    cv2.imwrite(str(tmp_path / "b.png"), np.pad(wide, ((50, 50), (0, 0)), constant_values=110))
    pair = next(match_many([(tmp_path / "a.png", tmp_path / "b.png")], SIFT, MatchSettings(max_side=640)))
    np.testing.assert_allclose(transfer(pair.geometry.matrix, np.array([[2990.0, 195.0]])), [[2990, 245]], atol=0.7)


@pytest.mark.parametrize("model", ["homography", "fundamental"])
def test_unrelated_photographs_agree_on_nothing(tmp_path, model):
    for name, seed in (("a", 3), ("b", 4)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), photograph(seed=seed))
    pair = next(match_many([(tmp_path / "a.png", tmp_path / "b.png")], SIFT, MatchSettings(model=model, ratio=None)))
    assert len(pair.matches.pairs) > 50
    assert pair.geometry.matrix is None
    assert not pair.geometry.inliers.any()


def test_json_has_it_all(tmp_path):
    write_pair(tmp_path)
    pair = next(match_many([(tmp_path / "a.png", tmp_path / "b.png")], SIFT, MatchSettings()))
    told = json.loads(json.dumps(pair.as_json()))
    assert told["inliers"] == sum(match["inlier"] for match in told["matches"]) > 100
    assert told["model"] == "homography"
    assert np.array(told["matrix"]).shape == (3, 3)
    assert told["keypoints"][0] == len(pair.first.points)


def test_photographs_of_different_things_say_what_to_try(tmp_path):
    write_pair(tmp_path)
    dot = np.full((100, 120), 90, np.uint8)
    cv2.circle(dot, (60, 50), 9, 255, -1)
    cv2.imwrite(str(tmp_path / "dot.png"), cv2.GaussianBlur(dot, (0, 0), 2))
    photos = [describe_photo(tmp_path / name, SIFT, MatchSettings()) for name in ("a.png", "dot.png")]
    pair = match_photos(*photos, MatchSettings())
    assert pair.geometry.matrix is None
    assert "more than chance (at least 15)" in why_no_geometry(pair)
    assert "--upright" in why_no_geometry(pair)


def test_mistakes_about_files(tmp_path):
    write_pair(tmp_path)
    cv2.imwrite(str(tmp_path / "even.png"), np.full((100, 100), 90, np.uint8))
    (tmp_path / "text.jpg").write_text("no image")
    settings = MatchSettings()
    for name, message in (
        ("even.png", "has no keypoints"),
        ("text.jpg", "cannot be matched: it is not a BMP, GIF"),
        ("none.png", "there is no file"),
    ):
        with pytest.raises(UserError, match=message):
            describe_photo(tmp_path / name, SIFT, settings)
    skipped = {}
    pairs = all_pairs([tmp_path / name for name in ("a.png", "even.png", "b.png", "none.png")])
    assert len(list(match_many(pairs, SIFT, settings, skipped))) == 1
    assert [path.name for path in skipped] == ["even.png", "none.png"]
    with pytest.raises(UserError, match="holds 0 photographs, two are the least"):
        find_photographs(tmp_path.parent / tmp_path.name / "..")
    assert [path.name for path in find_photographs(tmp_path)] == ["a.png", "b.png", "even.png", "text.jpg"]
    assert len(all_pairs(find_photographs(tmp_path))) == 6
    with pytest.raises(UserError, match="not a run"):
        find_descriptor(str(tmp_path))


def test_lists_of_pairs(tmp_path):
    (tmp_path / "pairs.txt").write_text("# two a line\n\na.png b.png\nsub/c.png a.png\n")
    assert read_pairs(tmp_path / "pairs.txt")[1] == (tmp_path / "sub" / "c.png", tmp_path / "a.png")
    (tmp_path / "pairs.txt").write_text("\ufeff'a b.png' c.png\nc.png, a b.png\n", encoding="utf-8")
    assert read_pairs(tmp_path / "pairs.txt") == [(tmp_path / "a b.png", tmp_path / "c.png")]
    for content, message in ((b"\xff\xfe\x80", "is not UTF-8 text"), (b"# none\n", "names no photographs")):
        (tmp_path / "pairs.txt").write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_pairs(tmp_path / "pairs.txt")
    (tmp_path / "pairs.txt").write_text("a.png b.png c.png\n")
    with pytest.raises(UserError, match="3 names in line 1"):
        read_pairs(tmp_path / "pairs.txt")
    with pytest.raises(UserError, match="there is no file"):
        read_pairs(tmp_path / "nothing.txt")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 1.5}, "is no share"),
        ({"max_side": 8}, "cannot be matched"),
        ({"threshold": 0}, "above 0"),
        ({"threshold": float("nan")}, "above 0"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(UserError, match=message):
        MatchSettings(**settings)
