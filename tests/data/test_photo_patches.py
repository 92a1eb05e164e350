"""The patch cache: what it holds, what it skips, how it is keyed, what goes wrong."""

import shutil

import cv2
import numpy as np
import pytest

from csametric.data import photo_patches
from csametric.data.decoding import UnreadableImageError
from csametric.data.photo_patches import BUNDLED_HELD_OUT, PhotoSettings, find_photos, open_photo_patches, read_photo
from csametric.data.stereo import motorcycle
from csametric.errors import UserError


def small(folder, **changes) -> PhotoSettings:
    return PhotoSettings(folder=str(folder), keypoints=200, views=4, held_out_keypoints=50, **changes)


@pytest.fixture
def own(photo_folder, tmp_path_factory):
    return shutil.copytree(photo_folder, tmp_path_factory.mktemp("copy") / "own")


def test_cache_holds_what_was_asked_for(photo_folder, cache):
    patches = open_photo_patches(small(photo_folder), cache)
    assert patches.train.shape[1:] == (4, 32, 32)
    assert patches.held_out.shape[1:] == (4, 32, 32)
    assert len(patches.held_out_photos) == len(patches.held_out)
    assert isinstance(patches.train, np.memmap)
    assert sum(patches.summary.train.values()) == len(patches.train)
    assert list(patches.summary.held_out) == ["photo0.png"]
    assert list(patches.summary.train) == [f"photo{i}.png" for i in range(1, 5)]


def test_second_opening_is_the_same_cache(photo_folder, tmp_path):
    first = open_photo_patches(small(photo_folder), tmp_path)
    again = open_photo_patches(small(photo_folder), tmp_path)
    assert first.summary == again.summary
    np.testing.assert_array_equal(first.train, again.train)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_same_settings_build_the_same_bytes(photo_folder, tmp_path):
    first, again = (open_photo_patches(small(photo_folder), tmp_path / name) for name in ("a", "b"))
    np.testing.assert_array_equal(first.train, again.train)
    np.testing.assert_array_equal(first.held_out, again.held_out)


def test_other_settings_or_files_are_another_cache(own, tmp_path):
    open_photo_patches(small(own), tmp_path)
    open_photo_patches(small(own, seed=1), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    (own / "photo0.png").unlink()
    open_photo_patches(small(own), tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_bad_files_are_skipped_and_named(own, tmp_path):
    whole = (own / "photo1.png").read_bytes()
    (own / "photo1.png").write_bytes(whole[: len(whole) // 2])
    (own / "notes.jpg").write_text("no image")
    cv2.imwrite(str(own / "flat.png"), np.full((90, 90), 7, np.uint8))
    cv2.imwrite(str(own / "tiny.png"), np.zeros((20, 90), np.uint8))
    (own / "readme.txt").write_text("about these photographs")
    (own / ".hidden").write_text("not even looked at")
    summary = open_photo_patches(small(own), tmp_path).summary
    assert set(summary.skipped) == {"photo1.png", "notes.jpg", "flat.png", "tiny.png", "readme.txt"}
    assert summary.skipped["readme.txt"] == "not a photograph by its name"
    assert summary.skipped["flat.png"] == "no keypoints"
    assert "smaller than 32 pixels" in summary.skipped["tiny.png"]
    assert "5 skipped" in str(summary)
    assert "notes.jpg: is not a BMP, GIF, JPEG" in str(summary)


def test_a_truncated_jpeg_is_no_whole_image(own):
    image = cv2.imread(str(own / "photo0.png"))
    whole = cv2.imencode(".jpg", image)[1].tobytes()
    (own / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(UnreadableImageError, match="not a whole image"):
        read_photo(own / "cut.jpg", 1600)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_large_photographs_are_reduced(tmp_path, suffix):
    cv2.imwrite(str(tmp_path / f"large{suffix}"), np.random.default_rng(0).integers(0, 256, (500, 900), dtype=np.uint8))
    photo = read_photo(tmp_path / f"large{suffix}", 300)
    assert photo.pixels.shape == (167, 300)
    assert photo.file_size == (900, 500)


def test_sixteen_bits_are_reduced_to_eight(tmp_path):
    grey = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    cv2.imwrite(str(tmp_path / "deep.png"), grey)
    np.testing.assert_allclose(read_photo(tmp_path / "deep.png", 100).pixels.astype(int), grey // 256, atol=1)


def test_what_a_kill_left_is_cleared_by_any_later_build(photo_folder, tmp_path):
    left = tmp_path / ".csametric-0123456789abcdef.part"
    left.mkdir()
    open_photo_patches(small(photo_folder), tmp_path)
    assert not left.exists()


def test_files_of_one_name_in_two_folders_are_told_apart(own, tmp_path):
    (own / "sub").mkdir()
    for folder in (own, own / "sub"):
        (folder / "bad.png").write_text("no image")
    assert set(open_photo_patches(small(own), tmp_path).summary.skipped) == {"bad.png", "sub/bad.png"}


@pytest.mark.parametrize(
    "change", [{"views": 1}, {"keypoints": 0}, {"max_side": 8}, {"support": 0.0}, {"held_out_every": 1}, {"folder": ""}]
)
def test_settings_that_cannot_work_are_refused(change):
    with pytest.raises(UserError, match=r"data\..*; (use|name)"):
        PhotoSettings(**change)


def test_missing_empty_and_unusable_folders(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        find_photos(PhotoSettings(folder=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match="holds 0 photographs"):
        find_photos(PhotoSettings(folder=str(tmp_path)))
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"flat{index}.png"), np.full((90, 90), 7, np.uint8))
    with pytest.raises(UserError, match="0 of the 3 photographs have usable keypoints"):
        open_photo_patches(PhotoSettings(folder=str(tmp_path)), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("bad", ["photo0.png", "photo4.png"])
def test_a_bad_file_never_costs_the_split(own, tmp_path, bad):
    (own / bad).write_text("no image")
    patches = open_photo_patches(small(own), tmp_path)
    assert len(patches.summary.held_out) == 1
    assert len(patches.summary.train) == 3


def test_many_skipped_files_are_counted_and_some_named(own, tmp_path):
    for index in range(50):
        (own / f"note{index:02}.txt").write_text("")
    text = str(open_photo_patches(small(own), tmp_path).summary)
    assert "50 skipped" in text
    assert "30 more" in text


def test_a_damaged_cache_says_what_to_remove(photo_folder, tmp_path):
    open_photo_patches(small(photo_folder), tmp_path)
    (folder,) = tmp_path.iterdir()
    whole = (folder / "train.u8").read_bytes()
    (folder / "train.u8").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"train.u8 has .* bytes instead of .*; remove the folder"):
        open_photo_patches(small(photo_folder), tmp_path)
    (folder / "train.u8").write_bytes(whole)
    (folder / "summary.json").write_text("{")
    with pytest.raises(UserError, match="is damaged; remove that folder"):
        open_photo_patches(small(photo_folder), tmp_path)


def test_a_full_disk_leaves_nothing_behind(photo_folder, tmp_path, monkeypatch):
    """The write itself fails, as on a real full disk (/dev/full), not a stand-in for it."""
    real = photo_patches._write

    def on_a_full_disk(settings, found, others, new, progress):
        (new / photo_patches.TRAIN_FILE).symlink_to("/dev/full")
        return real(settings, found, others, new, progress)

    monkeypatch.setattr(photo_patches, "_write", on_a_full_disk)
    with pytest.raises(UserError, match="is full; free some room or set CSAMETRIC_CACHE"):
        open_photo_patches(small(photo_folder), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_photographs_are_read_a_few_at_a_time(tmp_path, photo_folder, monkeypatch):
    """Forty photographs: never more than four are read ahead of what is written."""
    for index in range(40):
        shutil.copy(photo_folder / f"photo{index % 5}.png", tmp_path / f"copy{index:02}.png")
    read, done = [], []
    real = photo_patches.read_photo
    monkeypatch.setattr(photo_patches, "read_photo", lambda path, side: read.append(path) or real(path, side))
    ahead = []
    open_photo_patches(
        small(tmp_path, seed=3), tmp_path / "cache", lambda count, total: done.append(count) or ahead.append(len(read) - count)
    )
    assert done == list(range(1, 41))
    assert max(ahead) <= 4


def test_the_bundled_photographs_are_all_there():
    found, others = find_photos(PhotoSettings())
    assert all(path.is_file() for path in found)
    assert others == []
    assert len({path.name for path in found}) == len(found)
    assert all("motorcycle" not in path.name or path.name in BUNDLED_HELD_OUT for path in found)


def test_the_stereo_pair_has_its_disparity():
    pair = motorcycle()
    assert pair.left.shape == pair.right.shape == pair.disparity.shape == (500, 741)
    known = np.isfinite(pair.disparity)
    assert 0.9 < known.mean() < 1
    rows, columns = np.nonzero(known)
    there = (columns - pair.disparity[known]).round().astype(int)
    seen = there >= 0
    difference = pair.left[rows, columns][seen].astype(int) - pair.right[rows[seen], there[seen]]
    assert np.median(np.abs(difference)) < 10
