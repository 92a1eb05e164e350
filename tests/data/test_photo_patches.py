"""Patches of photographs: what the cache holds, which files are skipped, how the cache is keyed, and its errors."""

import shutil

import cv2
import numpy as np
import pytest

from csametric.data import photo_patches
from csametric.data.decoding import UnreadableImageError
from csametric.data.photo_patches import BUNDLED_HELD_OUT, PhotoSettings, find_photos, open_photo_patches, read_photo
from csametric.data.stereo import read_motorcycle
from csametric.errors import UserError


def small_settings(folder, **changes) -> PhotoSettings:
    return PhotoSettings(folder=str(folder), keypoints=200, views=4, held_out_keypoints=50, **changes)


@pytest.fixture
def folder_copy(photo_folder, tmp_path_factory):
    """A copy of the shared photographs that a test may change."""
    return shutil.copytree(photo_folder, tmp_path_factory.mktemp("copy") / "photos")


def test_the_cache_holds_the_requested_patches(photo_folder, cache):
    patches = open_photo_patches(small_settings(photo_folder), cache)
    assert patches.train.shape[1:] == (4, 32, 32)
    assert patches.held_out.shape[1:] == (4, 32, 32)
    assert len(patches.held_out_photos) == len(patches.held_out)
    assert isinstance(patches.train, np.memmap)
    assert sum(patches.summary.train.values()) == len(patches.train)
    assert list(patches.summary.held_out) == ["photo0.png"]
    assert list(patches.summary.train) == [f"photo{i}.png" for i in range(1, 5)]


def test_the_same_settings_reuse_the_cache(photo_folder, tmp_path):
    first = open_photo_patches(small_settings(photo_folder), tmp_path)
    second = open_photo_patches(small_settings(photo_folder), tmp_path)
    assert first.summary == second.summary
    np.testing.assert_array_equal(first.train, second.train)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_same_settings_build_the_same_bytes(photo_folder, tmp_path):
    first, second = (open_photo_patches(small_settings(photo_folder), tmp_path / name) for name in ("a", "b"))
    np.testing.assert_array_equal(first.train, second.train)
    np.testing.assert_array_equal(first.held_out, second.held_out)


def test_other_settings_or_files_use_another_cache(folder_copy, tmp_path):
    open_photo_patches(small_settings(folder_copy), tmp_path)
    open_photo_patches(small_settings(folder_copy, seed=1), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    (folder_copy / "photo0.png").unlink()
    open_photo_patches(small_settings(folder_copy), tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_bad_files_are_skipped_and_named(folder_copy, tmp_path):
    content = (folder_copy / "photo1.png").read_bytes()
    (folder_copy / "photo1.png").write_bytes(content[: len(content) // 2])
    (folder_copy / "notes.jpg").write_text("no image")
    cv2.imwrite(str(folder_copy / "flat.png"), np.full((90, 90), 7, np.uint8))
    cv2.imwrite(str(folder_copy / "tiny.png"), np.zeros((20, 90), np.uint8))
    (folder_copy / "readme.txt").write_text("about these photographs")
    (folder_copy / ".hidden").write_text("never opened")
    summary = open_photo_patches(small_settings(folder_copy), tmp_path).summary
    assert set(summary.skipped) == {"photo1.png", "notes.jpg", "flat.png", "tiny.png", "readme.txt"}
    assert summary.skipped["readme.txt"] == "not named like an image"
    assert summary.skipped["flat.png"] == "no keypoints found"
    assert "smaller than 32 pixels" in summary.skipped["tiny.png"]
    assert "5 skipped" in str(summary)
    assert "notes.jpg: is not a BMP, GIF, JPEG" in str(summary)


def test_a_truncated_jpeg_is_refused(folder_copy):
    image = cv2.imread(str(folder_copy / "photo0.png"))
    content = cv2.imencode(".jpg", image)[1].tobytes()
    (folder_copy / "cut.jpg").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(UnreadableImageError, match="not a whole image"):
        read_photo(folder_copy / "cut.jpg", 1600)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_large_photographs_are_reduced(tmp_path, suffix):
    cv2.imwrite(str(tmp_path / f"large{suffix}"), np.random.default_rng(0).integers(0, 256, (500, 900), dtype=np.uint8))
    photo = read_photo(tmp_path / f"large{suffix}", 300)
    assert photo.pixels.shape == (167, 300)
    assert photo.file_size == (900, 500)


def test_sixteen_bit_images_are_reduced_to_eight_bits(tmp_path):
    grey = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    cv2.imwrite(str(tmp_path / "deep.png"), grey)
    np.testing.assert_allclose(read_photo(tmp_path / "deep.png", 100).pixels.astype(int), grey // 256, atol=1)


def test_a_later_build_removes_what_a_killed_one_left(photo_folder, tmp_path):
    left = tmp_path / ".csametric-0123456789abcdef.part"
    left.mkdir()
    open_photo_patches(small_settings(photo_folder), tmp_path)
    assert not left.exists()


def test_skipped_files_of_the_same_name_in_two_folders_are_both_named(folder_copy, tmp_path):
    (folder_copy / "sub").mkdir()
    for folder in (folder_copy, folder_copy / "sub"):
        (folder / "bad.png").write_text("no image")
    assert set(open_photo_patches(small_settings(folder_copy), tmp_path).summary.skipped) == {"bad.png", "sub/bad.png"}


@pytest.mark.parametrize(
    "change", [{"views": 1}, {"keypoints": 0}, {"max_side": 8}, {"support": 0.0}, {"held_out_every": 1}, {"folder": ""}]
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(UserError, match=r"data\..*; (use|name)"):
        PhotoSettings(**change)


def test_missing_empty_and_unusable_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        find_photos(PhotoSettings(folder=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match=r"needs at least 2 photographs, .*, got 0"):
        find_photos(PhotoSettings(folder=str(tmp_path)))
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"flat{index}.png"), np.full((90, 90), 7, np.uint8))
    with pytest.raises(UserError, match=r"at least 2 photographs need usable keypoints, .*, got 0 of 3"):
        open_photo_patches(PhotoSettings(folder=str(tmp_path)), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("broken", ["photo0.png", "photo4.png"])
def test_a_broken_file_leaves_both_splits_with_photographs(folder_copy, tmp_path, broken):
    (folder_copy / broken).write_text("no image")
    patches = open_photo_patches(small_settings(folder_copy), tmp_path)
    assert len(patches.summary.held_out) == 1
    assert len(patches.summary.train) == 3


def test_many_skipped_files_are_counted_and_the_first_named(folder_copy, tmp_path):
    for index in range(50):
        (folder_copy / f"note{index:02}.txt").write_text("")
    text = str(open_photo_patches(small_settings(folder_copy), tmp_path).summary)
    assert "50 skipped" in text
    assert "30 more" in text


def test_the_error_for_a_damaged_cache_says_what_to_remove(photo_folder, tmp_path):
    open_photo_patches(small_settings(photo_folder), tmp_path)
    (folder,) = tmp_path.iterdir()
    content = (folder / "train.u8").read_bytes()
    (folder / "train.u8").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"train.u8 must have .* bytes, got .*; remove the folder"):
        open_photo_patches(small_settings(photo_folder), tmp_path)
    (folder / "train.u8").write_bytes(content)
    (folder / "summary.json").write_text("{")
    with pytest.raises(UserError, match="is damaged; remove that folder"):
        open_photo_patches(small_settings(photo_folder), tmp_path)


def test_a_full_disk_leaves_nothing_behind(photo_folder, tmp_path, monkeypatch):
    """Writing to /dev/full fails as on a full disk."""
    real = photo_patches._write

    def write_on_a_full_disk(settings, photos, others, folder, progress):
        (folder / photo_patches.TRAIN_FILE).symlink_to("/dev/full")
        return real(settings, photos, others, folder, progress)

    monkeypatch.setattr(photo_patches, "_write", write_on_a_full_disk)
    with pytest.raises(UserError, match="is full; free some space or set CSAMETRIC_CACHE"):
        open_photo_patches(small_settings(photo_folder), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_photographs_are_read_a_few_at_a_time(tmp_path, photo_folder, monkeypatch):
    """Of forty photographs, at most four are read ahead of those written."""
    for index in range(40):
        shutil.copy(photo_folder / f"photo{index % 5}.png", tmp_path / f"copy{index:02}.png")
    read, done = [], []
    real = photo_patches.read_photo
    monkeypatch.setattr(photo_patches, "read_photo", lambda path, side: read.append(path) or real(path, side))
    ahead = []

    def record_progress(count, total):
        done.append(count)
        ahead.append(len(read) - count)

    open_photo_patches(small_settings(tmp_path, seed=3), tmp_path / "cache", record_progress)
    assert done == list(range(1, 41))
    assert max(ahead) <= 4


def test_the_bundled_photographs_exist():
    photos, others = find_photos(PhotoSettings())
    assert all(path.is_file() for path in photos)
    assert others == []
    assert len({path.name for path in photos}) == len(photos)
    assert all("motorcycle" not in path.name or path.name in BUNDLED_HELD_OUT for path in photos)


def test_the_disparity_maps_the_left_photograph_to_the_right():
    pair = read_motorcycle()
    assert pair.left.shape == pair.right.shape == pair.disparity.shape == (500, 741)
    is_known = np.isfinite(pair.disparity)
    assert 0.9 < is_known.mean() < 1
    rows, columns = np.nonzero(is_known)
    right_columns = (columns - pair.disparity[is_known]).round().astype(int)
    is_inside = right_columns >= 0
    difference = pair.left[rows, columns][is_inside].astype(int) - pair.right[rows[is_inside], right_columns[is_inside]]
    assert np.median(np.abs(difference)) < 10
