"""Brown / UBC PhotoTour: the reader returns what was written, and the sampler draws valid batches."""

import cv2
import numpy as np
import pytest

from csametric.data.brown import read_brown, read_points, read_test_pairs
from csametric.data.sampling import index_points, point_batch
from csametric.errors import UserError
from tests.data.brown_folder import write_subset


@pytest.fixture
def subset(tmp_path):
    return tmp_path / "liberty", write_subset(tmp_path / "liberty")


def test_area_resampling_is_the_mean_of_two_by_two_pixels(subset, tmp_path):
    folder, patches = subset
    read = read_brown(folder, cache=tmp_path / "cache")
    means = patches.reshape(-1, 32, 2, 32, 2).mean((2, 4))
    assert read.patches.shape == (360, 32, 32)
    assert read.patches.dtype == np.uint8
    assert np.abs(read.patches - means).max() <= 0.5


def test_cubic_resampling_does_not_cross_patches(subset, tmp_path):
    folder, patches = subset
    read = read_brown(folder, "cubic", tmp_path / "cache")
    for index in (0, 17, 255, 256, 359):
        expected = cv2.resize(patches[index], (32, 32), interpolation=cv2.INTER_CUBIC)
        np.testing.assert_array_equal(read.patches[index], expected)


def test_points_and_pairs_equal_those_in_the_files(subset, tmp_path):
    folder, _ = subset
    read = read_brown(folder, cache=tmp_path / "cache")
    np.testing.assert_array_equal(read.points, np.repeat(np.arange(120), 3))
    pairs = read_test_pairs(folder, read.points)
    a, b = read.points[pairs.patches].T
    np.testing.assert_array_equal(pairs.is_match, a == b)
    assert len(pairs.is_match) == 400
    assert "published: 450,092" in str(read)


def test_the_cache_is_reused_until_a_file_changes(subset, tmp_path):
    folder, _ = subset
    sheets = []
    for _ in range(2):
        read_brown(folder, cache=tmp_path / "cache", progress=lambda done, total: sheets.append(done))
    assert sheets == [1, 2]
    cv2.imwrite(str(folder / "patches0001.bmp"), np.full((1024, 1024), 7, np.uint8))
    assert (read_brown(folder, cache=tmp_path / "cache").patches[300] == 7).all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "patches0001.bmp").unlink(),
            r"1 of the 2 sheets for the 360 patches .* are missing, first .*patches0001.bmp",
        ),
        (lambda folder: (folder / "patches0000.bmp").write_bytes(b"BM"), "patches0000.bmp is not a BMP, GIF"),
        (
            lambda folder: cv2.imwrite(str(folder / "patches0000.bmp"), np.zeros((64, 64), np.uint8)),
            "must have 1024 x 1024 pixels, got 64 x 64",
        ),
        (lambda folder: (folder / "info.txt").unlink(), "info.txt is missing"),
        (lambda folder: (folder / "info.txt").write_text(""), "info.txt is empty"),
        (lambda folder: (folder / "info.txt").write_text("\n\n"), "info.txt is empty"),
        (lambda folder: (folder / "info.txt").write_text("1 0\nx 0\n"), "must have 2 whole numbers per line"),
        (lambda folder: (folder / "info.txt").write_text("1\n1\n2\n2\n"), "2 whole numbers per line, got 1"),
        (lambda folder: (folder / "info.txt").write_text("1 0\n\n2 0\n"), "info.txt must not have empty lines"),
        (lambda folder: remove_two_numbers(folder / "info.txt"), "must have 2 whole numbers per line .*row 8"),
    ],
)
def test_the_error_for_a_damaged_subset_names_the_problem(subset, tmp_path, damage, message):
    folder, _ = subset
    damage(folder)
    with pytest.raises(UserError, match=message):
        read_brown(folder, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("brown-*"))


def remove_two_numbers(path):
    """Remove a number from each of two lines; the numbers that remain could still be read as a table of two columns."""
    lines = path.read_text().splitlines()
    lines[7], lines[99] = "2", "33"
    path.write_text("\n".join(lines) + "\n")


def test_pairs_of_patches_that_do_not_exist_are_refused(subset):
    folder, _ = subset
    points = read_points(folder)
    with pytest.raises(UserError, match=r"names patch 3\d\d, but"):
        read_test_pairs(folder, points[:300])
    with pytest.raises(UserError, match="missing"):
        read_test_pairs(folder, points, "m50_1_1_0.txt")


def test_pairs_and_info_must_name_the_same_points(subset):
    folder, _ = subset
    points = read_points(folder)
    shifted = np.roll(points, 1)
    with pytest.raises(UserError, match=r"and info.txt give different points in \d+ lines, first in line \d+; take both"):
        read_test_pairs(folder, shifted)


def test_a_truncated_cache_is_refused(subset, tmp_path):
    folder, _ = subset
    read_brown(folder, cache=tmp_path)
    (stored,) = tmp_path.glob("*/patches.u8")
    stored.write_bytes(stored.read_bytes()[:-1024])
    with pytest.raises(UserError, match=r"patches.u8 must have 368,640 bytes, got 367,616; remove the folder"):
        read_brown(folder, cache=tmp_path)


def test_a_batch_has_two_different_patches_of_different_points():
    points = np.random.default_rng(0).permutation(np.repeat(np.arange(50), np.arange(50) % 4 + 1))
    index = index_points(points)
    assert len(index.counts) == sum(np.bincount(points) > 1)
    patches = np.arange(len(points), dtype=np.int64)[:, None, None] * np.ones((1, 2, 2), np.int64)
    for step in range(20):
        batch = point_batch(patches, index, step, batch_size=30, seed=3)
        anchors, positives = batch.patches[:, :, 0, 0]
        assert len(np.unique(points[anchors])) == 30
        assert (points[anchors] == points[positives]).all()
        assert (anchors != positives).all()


def test_ranks_draw_disjoint_points_and_steps_are_reproducible():
    points = np.repeat(np.arange(40), 2)
    index, patches = index_points(points), np.random.default_rng(0).integers(0, 256, (80, 4, 4))
    ranks = [point_batch(patches, index, 5, batch_size=10, seed=1, rank=rank, world_size=2) for rank in (0, 1)]
    assert len(np.unique(np.concatenate([batch.identities for batch in ranks]))) == 20
    repeated = point_batch(patches, index, 5, batch_size=10, seed=1, rank=1, world_size=2)
    np.testing.assert_array_equal(repeated.patches, ranks[1].patches)
    assert not np.array_equal(point_batch(patches, index, 6, batch_size=10, seed=1).identities, ranks[0].identities)


def test_too_few_points_for_a_batch_are_refused():
    with pytest.raises(UserError, match="cannot fill a batch of 8"):
        point_batch(np.zeros((6, 2, 2)), index_points(np.repeat([0, 1, 2], 2)), 0, batch_size=8, seed=0)
