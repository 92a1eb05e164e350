"""Views of keypoints: geometry against OpenCV, ranges, and changes of light."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csametric.data.patch_views import (
    LEVELS,
    PATCH_SIDE,
    ViewRange,
    alter_light,
    homographies,
    pyramid,
    random_corners,
    random_views,
    sample_patches,
    upright_corners,
)

NO_CHANGE = ViewRange(
    rotation=0, scale=0, corner_jitter=0, shift=0, contrast=0, brightness=0, noise=0, blur=0, blur_probability=0
)


def photo(height: int = 120, width: int = 150) -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (height // 6, width // 6), dtype=np.uint8), (width, height))


def test_the_levels_have_their_published_ranges():
    ranges = {name: (level.rotation, level.scale, level.corner_jitter) for name, level in LEVELS.items()}
    assert ranges == {"easy": (5, 0.10, 0.05), "hard": (10, 0.20, 0.10), "tough": (20, 0.30, 0.15)}
    for level in LEVELS.values():
        light = (level.contrast, level.brightness, level.noise, level.blur, level.blur_probability)
        assert light == (0.2, 10, 6, 1.2, 0.3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_homographies_equal_opencv(seed):
    corners = upright_corners(np.array([[70.0, 60.0]]), np.array([40.0]))
    corners = random_corners(corners, LEVELS["tough"], np.random.default_rng(seed))
    outer = np.array([[0, 0], [32, 0], [32, 32], [0, 32]], np.float32) - 0.5
    expected = cv2.getPerspectiveTransform(outer, corners[0].astype(np.float32))
    np.testing.assert_allclose(homographies(corners)[0], expected, atol=1e-4)


def test_a_patch_at_the_scale_of_the_photograph_equals_its_pixels():
    image = photo()
    corners = upright_corners(np.array([[39.5, 51.5]]), np.array([32.0]))
    np.testing.assert_array_equal(sample_patches([image], corners)[0], image[36:68, 24:56])


def test_a_large_region_equals_the_mean_of_its_pixels():
    image = photo(256, 256)
    corners = upright_corners(np.array([[127.5, 127.5]]), np.array([256.0]))
    expected = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(sample_patches(pyramid(image), corners)[0].astype(int), expected, atol=2)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(LEVELS)), st.integers(0, 10**6))
def test_views_stay_within_their_range(level, seed):
    view_range = LEVELS[level]
    centres, side = np.full((50, 2), 60.0), 40.0
    corners = random_corners(upright_corners(centres, np.full(50, side)), view_range, np.random.default_rng(seed))
    shifts = np.linalg.norm(corners.mean(1) - centres, axis=1)
    assert shifts.max() <= np.sqrt(2) * (view_range.shift + view_range.corner_jitter) * side / 2
    radii = np.linalg.norm(corners - corners.mean(1, keepdims=True), axis=2) / (side / np.sqrt(2))
    jitter = 2 * view_range.corner_jitter
    assert 1 - view_range.scale - jitter <= radii.min() <= radii.max() <= 1 + view_range.scale + jitter


def test_a_view_with_a_range_of_zero_is_the_upright_patch():
    image = photo()
    corners = upright_corners(np.array([[60.0, 60.0], [70.0, 40.0]]), np.array([30.0, 44.0]))
    views = random_views(pyramid(image), corners, 3, NO_CHANGE, np.random.default_rng(0))
    upright = sample_patches(pyramid(image), corners)
    np.testing.assert_array_equal(views, np.repeat(upright[:, None], 3, 1))


def test_rotations_fill_their_range():
    corners = upright_corners(np.zeros((200, 2)), np.full(200, 2.0))
    turned = random_corners(corners, ViewRange(rotation=20, scale=0, corner_jitter=0, shift=0), np.random.default_rng(0))
    angles = np.rad2deg(np.arctan2(*(turned[:, 1] - turned[:, 0]).T[::-1]))
    assert 15 < np.abs(angles).max() <= 20
    assert angles.min() < 0 < angles.max()


def test_light_changes_within_its_range():
    grey = np.full((400, 32, 32), 128, np.uint8)
    only_brightness = ViewRange(rotation=0, scale=0, corner_jitter=0, shift=0, contrast=0, noise=0, blur_probability=0)
    means = alter_light(grey, only_brightness, np.random.default_rng(0)).mean((1, 2))
    assert 8 < np.abs(means - 128).max() <= 10
    noisy = ViewRange(rotation=0, scale=0, corner_jitter=0, shift=0, contrast=0, brightness=0, blur_probability=0)
    deviations = alter_light(grey, noisy, np.random.default_rng(0)).std((1, 2))
    assert 5 < deviations.max() < 6.6


def test_views_depend_on_their_seed_alone():
    corners = upright_corners(np.array([[60.0, 60.0]]), np.array([30.0]))
    first, repeated, other = (
        random_views(pyramid(photo()), corners, 8, LEVELS["tough"], np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, repeated)
    assert (first != other).any()
    assert first.shape == (1, 8, PATCH_SIDE, PATCH_SIDE)


@pytest.mark.parametrize("count", [0, 513, 1100])
def test_views_of_any_number_of_keypoints_are_sampled(count):
    corners = upright_corners(np.full((count, 2), 60.0), np.full(count, 30.0))
    assert random_views(pyramid(photo()), corners, 2, LEVELS["easy"], np.random.default_rng(0)).shape[:2] == (count, 2)
