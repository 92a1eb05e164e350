"""Loading: images read and augmented, batches drawn, and prefetching."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from csametric.data.decoding import decode_colours
from csametric.data.loading import image_batch, prefetch
from csametric.data.records import Record
from csametric.data.sampling import identity_batch, image_steps_per_epoch, shuffled_batch
from csametric.data.transforms import Augmentation, augment, read_image
from csametric.errors import UserError

GRADIENT = np.arange(40 * 20 * 3, dtype=np.uint32).reshape(40, 20, 3).astype(np.uint8)


def test_images_of_every_mode_become_rgb(tmp_path):
    for mode in ("RGB", "L", "P", "RGBA", "CMYK", "1"):
        suffix = "tif" if mode == "CMYK" else "png"
        Image.new(mode, (10, 20), 1).save(tmp_path / f"{mode}.{suffix}")
        assert read_image(tmp_path / f"{mode}.{suffix}", 16, 8).shape == (16, 8, 3)


def test_truncated_and_deep_images_are_refused(tmp_path):
    Image.fromarray(GRADIENT).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:400])
    with pytest.raises(UserError, match=r"half.jpg is not a whole image .*; remove or replace it"):
        read_image(tmp_path / "half.jpg", 8, 8)
    Image.new("F", (9, 9)).save(tmp_path / "deep.tif")
    with pytest.raises(UserError, match=r"has mode F, numbers of an unknown range, .*; convert it to 8 bits"):
        read_image(tmp_path / "deep.tif", 8, 8)


def test_a_flip_with_probability_1_mirrors_the_image():
    flipped = augment(GRADIENT, Augmentation(flip=1.0), np.random.default_rng(0))
    assert np.array_equal(flipped, GRADIENT[:, ::-1])
    assert np.array_equal(augment(GRADIENT, Augmentation(flip=0.0), np.random.default_rng(0)), GRADIENT)


def test_a_shift_moves_the_image_by_at_most_the_padding():
    for seed in range(20):
        shifted = augment(GRADIENT, Augmentation(flip=0, pad=3), np.random.default_rng(seed))
        padded = np.pad(GRADIENT, ((3, 3), (3, 3), (0, 0)))
        assert any(np.array_equal(shifted, padded[y : y + 40, x : x + 20]) for y in range(7) for x in range(7))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_erasing_fills_one_rectangle_of_the_stated_size(seed):
    image = np.zeros((64, 32, 3), np.uint8)
    erased = augment(image, Augmentation(flip=0, erasing=1.0, fill=(9, 9, 9)), np.random.default_rng(seed))
    ys, xs = np.nonzero(erased[..., 0])
    height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
    assert len(ys) == height * width
    assert 0.01 < len(ys) / (64 * 32) < 0.43
    assert 0.2 < height / width < 4.6
    assert not image.any()


@settings(max_examples=50, deadline=None)
@given(images=st.integers(8, 60), batch_size=st.integers(1, 4), world_size=st.integers(1, 2), seed=st.integers(0, 99))
def test_an_epoch_of_all_ranks_has_every_image_at_most_once(images, batch_size, world_size, seed):
    steps = image_steps_per_epoch(images, batch_size, world_size)
    for epoch in (0, 1):
        drawn = np.concatenate(
            [
                shuffled_batch(images, epoch * steps + step, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
                for step in range(steps)
                for rank in range(world_size)
            ]
        )
        assert len(drawn) == steps * batch_size * world_size
        assert len(set(drawn)) == len(drawn)
        assert set(drawn) <= set(range(images))


def test_epochs_differ_and_depend_on_the_seed_alone():
    first, second = (shuffled_batch(50, step, batch_size=50, seed=1) for step in (0, 1))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, shuffled_batch(50, 0, batch_size=50, seed=1))
    with pytest.raises(UserError, match="3 training images cannot fill a batch of 4; lower batch_size"):
        shuffled_batch(3, 0, batch_size=4, seed=0)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 99), world_size=st.integers(1, 2), step=st.integers(0, 30))
def test_identity_batches_have_p_identities_of_k_images(seed, world_size, step):
    classes = np.repeat(np.arange(10), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    draws = [
        identity_batch(classes, step, batch_size=12, per_identity=3, seed=seed, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    people = np.concatenate([classes[draw] for draw in draws]).reshape(-1, 3)
    assert (people == people[:, :1]).all()
    assert len(set(people[:, 0])) == 4 * world_size
    for images in np.concatenate(draws).reshape(-1, 3):
        assert len(set(images)) == min(3, (classes == classes[images[0]]).sum())


def test_a_round_of_identity_batches_visits_every_identity():
    classes = np.repeat(np.arange(9), 4)
    seen = [classes[identity_batch(classes, step, batch_size=6, per_identity=2, seed=0)] for step in range(3)]
    assert set(np.concatenate(seen)) == set(range(9))
    with pytest.raises(UserError, match="must be a multiple of images_per_identity=4, got 6"):
        identity_batch(classes, 0, batch_size=6, per_identity=4, seed=0)
    with pytest.raises(UserError, match="9 identities cannot fill a batch of 10"):
        identity_batch(classes, 0, batch_size=20, per_identity=2, seed=0)


def test_an_image_batch_depends_on_its_seed_alone(tmp_path):
    Image.fromarray(GRADIENT).save(tmp_path / "a.png")
    records = [Record(tmp_path / "a.png", 1, 1)] * 6
    settings = {"height": 40, "width": 20, "augmentation": Augmentation(pad=4, erasing=0.5)}
    first, repeated, other = (image_batch(records, np.zeros(6, int), seed=(0, n), **settings).images for n in (1, 1, 2))
    assert np.array_equal(first, repeated)
    assert not np.array_equal(first, other)
    assert len({image.tobytes() for image in first}) > 1


def test_prefetching_keeps_the_order_and_passes_errors_on():
    assert list(prefetch(lambda n: n * n, range(20), workers=3)) == [n * n for n in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda n: 1 // n, [2, 1, 0]))


def test_closing_a_prefetcher_early_ends_its_threads():
    before = threading.active_count()
    stream = prefetch(lambda n: n, range(1000))
    assert next(stream) == 0
    stream.close()
    assert threading.active_count() <= before


def test_images_are_rotated_by_their_exif_orientation(tmp_path):
    upright = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to display
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(decode_colours(tmp_path / "turned.png"), upright)
