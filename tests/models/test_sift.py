"""The SIFT baseline on extracted patches."""

import cv2
import numpy as np

from csametric.models.sift import sift_descriptors


def patches(count: int = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([cv2.resize(rng.integers(0, 256, (8, 8), dtype=np.uint8), (32, 32)) for _ in range(count)])


def test_descriptors_have_unit_length_and_are_deterministic():
    for root in (False, True):
        descriptors = sift_descriptors(patches(), root)
        assert descriptors.shape == (4, 128)
        np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(descriptors, sift_descriptors(patches(), root))


def test_root_sift_is_the_square_root_of_l1_normalised_sift():
    plain, root = sift_descriptors(patches()), sift_descriptors(patches(), root=True)
    np.testing.assert_allclose(root**2, plain / plain.sum(1, keepdims=True), atol=1e-6)


def test_patches_are_nearest_to_their_own_noisy_copies():
    clean = patches()
    noisy = np.clip(clean + np.random.default_rng(1).normal(0, 5, clean.shape), 0, 255).astype(np.uint8)
    distances = np.linalg.norm(sift_descriptors(clean)[:, None] - sift_descriptors(noisy)[None], axis=2)
    np.testing.assert_array_equal(distances.argmin(1), range(4))


def test_flat_patches_and_empty_input_are_accepted():
    assert np.isfinite(sift_descriptors(np.full((1, 32, 32), 9, np.uint8), root=True)).all()
    assert sift_descriptors(np.empty((0, 32, 32), np.uint8)).shape == (0, 128)
