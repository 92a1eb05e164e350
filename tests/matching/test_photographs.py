"""Photographs are matched in the pixels of their files, and mistakes of the user are explained."""

import json
from pathlib import Path

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
    """With max_side=480 both files are halved; the results are the same."""
    true = write_pair(tmp_path, factor=2)
    settings = MatchSettings(max_side=max_side)
    pair = next(match_many([(tmp_path / "a.png", tmp_path / "b.png")], SIFT, settings))
    inliers = pair.geometry.inliers
    assert pair.first.scale == ((2, 2) if max_side == 480 else (1, 1))
    assert inliers.sum() > 100
    errors = transfer_errors(true, pair.from_points[inliers], pair.to_points[inliers])
    assert np.median(errors) < 1
    assert corner_error(pair.geometry.matrix, true, 960, 720) < 2
    assert why_no_geometry(pair) == ""


def test_a_fundamental_matrix_is_in_pixels_of_the_files(tmp_path):
    write_pair(tmp_path, factor=2)
    settings = MatchSettings(max_side=480, model="fundamental")
    pair = next(match_many([(tmp_path / "a.png", tmp_path / "b.png")], SIFT, settings))
    ones = np.ones((len(pair.from_points), 1))
    lines = np.hstack([pair.from_points, ones]) @ pair.geometry.matrix.T
    residuals = np.abs((lines * np.hstack([pair.to_points, ones])).sum(1)) / np.linalg.norm(lines[:, :2], axis=1)
    assert np.median(residuals[pair.geometry.inliers]) < 2


def test_a_reduced_panorama_keeps_one_scale_for_x_and_one_for_y(tmp_path):
    wide = np.hstack([photograph(203, 750, seed) for seed in range(4)])
    cv2.imwrite(str(tmp_path / "a.png"), wide)
    cv2.imwrite(str(tmp_path / "b.png"), np.pad(wide, ((50, 50), (0, 0)), constant_values=110))
    pair = next(match_many([(tmp_path / "a.png", tmp_path / "b.png")], SIFT, MatchSettings(max_side=640)))
    np.testing.assert_allclose(transfer(pair.geometry.matrix, np.array([[2990.0, 195.0]])), [[2990, 245]], atol=0.7)


@pytest.mark.parametrize("model", ["homography", "fundamental"])
def test_unrelated_photographs_give_no_geometry(tmp_path, model):
    for name, seed in (("a", 3), ("b", 4)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), photograph(seed=seed))
    pair = next(match_many([(tmp_path / "a.png", tmp_path / "b.png")], SIFT, MatchSettings(model=model, ratio=None)))
    assert len(pair.matches.pairs) > 50
    assert pair.geometry.matrix is None
    assert not pair.geometry.inliers.any()


def test_json_contains_the_matches_and_the_geometry(tmp_path):
    write_pair(tmp_path)
    pair = next(match_many([(tmp_path / "a.png", tmp_path / "b.png")], SIFT, MatchSettings()))
    written = json.loads(json.dumps(pair.as_json()))
    assert written["inliers"] == sum(match["inlier"] for match in written["matches"])
    assert written["inliers"] > 100
    assert written["model"] == "homography"
    assert np.array(written["matrix"]).shape == (3, 3)
    assert written["keypoints"][0] == len(pair.first.points)


def test_a_pair_without_geometry_is_explained_with_advice(tmp_path):
    write_pair(tmp_path)
    dot = np.full((100, 120), 90, np.uint8)
    cv2.circle(dot, (60, 50), 9, 255, -1)
    cv2.imwrite(str(tmp_path / "dot.png"), cv2.GaussianBlur(dot, (0, 0), 2))
    photos = [describe_photo(tmp_path / name, SIFT, MatchSettings()) for name in ("a.png", "dot.png")]
    pair = match_photos(*photos, MatchSettings())
    assert pair.geometry.matrix is None
    assert "to rule out chance (at least 15 are needed)" in why_no_geometry(pair)
    assert "upright keypoints" in why_no_geometry(pair)
    assert "--" not in why_no_geometry(pair), "the library does not name command-line options"


def test_unusable_photographs_are_refused_or_skipped(tmp_path):
    write_pair(tmp_path)
    cv2.imwrite(str(tmp_path / "uniform.png"), np.full((100, 100), 90, np.uint8))
    (tmp_path / "text.jpg").write_text("no image")
    settings = MatchSettings()
    for name, message in (
        ("uniform.png", "no keypoints found in .*uniform.png"),
        ("text.jpg", "cannot be matched: it is not a BMP, GIF"),
        ("none.png", "none.png does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            describe_photo(tmp_path / name, SIFT, settings)
    skipped = {}
    pairs = all_pairs([tmp_path / name for name in ("a.png", "uniform.png", "b.png", "none.png")])
    assert len(list(match_many(pairs, SIFT, settings, skipped))) == 1
    assert [path.name for path in skipped] == ["uniform.png", "none.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"need at least 2 photographs in .*, got 0; add some"):
        find_photographs(tmp_path / "empty")
    assert [path.name for path in find_photographs(tmp_path).images] == ["a.png", "b.png", "text.jpg", "uniform.png"]
    assert len(all_pairs(find_photographs(tmp_path).images)) == 6
    with pytest.raises(UserError, match="not a run"):
        find_descriptor(str(tmp_path))


def test_lists_of_pairs_are_read_or_refused(tmp_path):
    (tmp_path / "pairs.txt").write_text("# two per line\n\na.png b.png\nsub/c.png a.png\n")
    assert read_pairs(tmp_path / "pairs.txt")[1] == (tmp_path / "sub" / "c.png", tmp_path / "a.png")
    (tmp_path / "pairs.txt").write_text("\ufeff'a b.png' c.png\nc.png, a b.png\n", encoding="utf-8")
    assert read_pairs(tmp_path / "pairs.txt") == [(tmp_path / "a b.png", tmp_path / "c.png")]
    for content, message in ((b"\xff\xfe\x80", "is not UTF-8 text"), (b"# none\n", "lists no pairs; write two")):
        (tmp_path / "pairs.txt").write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_pairs(tmp_path / "pairs.txt")
    (tmp_path / "pairs.txt").write_text("a.png b.png c.png\n")
    with pytest.raises(UserError, match="line 1: expected two names, got 3"):
        read_pairs(tmp_path / "pairs.txt")
    with pytest.raises(UserError, match=r"nothing\.txt does not exist"):
        read_pairs(tmp_path / "nothing.txt")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 1.5}, r"ratio must be in \(0, 1\], got 1.5"),
        ({"max_side": 8}, "max_side must be at least 64 pixels, got 8"),
        ({"threshold": 0}, "above 0, got 0"),
        ({"threshold": float("nan")}, "above 0, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        MatchSettings(**settings)


def plane(seed=0):
    """A textured plane of 480 x 640 pixels."""
    noise = np.random.default_rng(seed).uniform(0, 255, (60, 80)).astype(np.float32)
    return cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def test_a_plane_gets_a_homography_and_depth_a_fundamental_matrix(tmp_path):
    """What COLMAP chooses itself: a homography of a scene with depth would give it one plane of the scene only."""
    image = plane()
    shift = np.float32([[1, 0, 12], [0, 1, 4]])
    moved = cv2.warpAffine(image, shift, (640, 480), borderMode=cv2.BORDER_REFLECT)
    layered = moved.copy()
    for band, pixels in enumerate((0, 24, 6, 36, 12, 30)):  # each band at another depth
        rows = slice(80 * band, 80 * band + 80)
        layered[rows] = np.roll(image, pixels, axis=1)[rows]
    for name, photo in (("a", image), ("moved", moved), ("layered", layered)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), photo)
    pairs = [(tmp_path / "a.png", tmp_path / "moved.png"), (tmp_path / "a.png", tmp_path / "layered.png")]
    planar, deep = match_many(pairs, SIFT, MatchSettings(model="auto"))
    assert (planar.model, deep.model) == ("homography", "fundamental")
    assert deep.geometry.inliers.sum() > 0.8 * len(deep.matches.pairs)
    assert planar.as_json()["model"] == "homography"


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ('"a, b.png" c.png', ("a, b.png", "c.png")),
        ('"a, b.png" "c, d.png"', ("a, b.png", "c, d.png")),
        ('"a, b.png","c, d.png"', ("a, b.png", "c, d.png")),
        ('"a, b.png", c.png', ("a, b.png", "c.png")),
        ("a b.png, c d.png", ("a b.png", "c d.png")),
        ("'a b.png' c.png", ("a b.png", "c.png")),
        ("it's.png b.png", ("it's.png", "b.png")),
        ("it's.png, b.png", ("it's.png", "b.png")),
    ],
)
def test_quotes_protect_commas_and_spaces(tmp_path, line, names):
    (tmp_path / "pairs.txt").write_text(f"{line}\n")
    assert read_pairs(tmp_path / "pairs.txt") == [tuple(tmp_path / name for name in names)]
    assert read_pairs(tmp_path / "pairs.txt", Path("elsewhere")) == [tuple(Path("elsewhere") / name for name in names)]
