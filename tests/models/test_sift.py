"""The SIFT baseline on ready-cut patches."""

import cv2
import numpy as np

from csametric.models.sift import sift_descriptors


def patches(count: int = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([cv2.resize(rng.integers(0, 256, (8, 8), dtype=np.uint8), (32, 32)) for _ in range(count)])


def test_unit_length_and_deterministic():
    for root in (False, True):
        described = sift_descriptors(patches(), root)
        assert described.shape == (4, 128)
        np.testing.assert_allclose(np.linalg.norm(described, axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(described, sift_descriptors(patches(), root))


def test_root_sift_is_the_root_of_the_shares():
    plain, root = sift_descriptors(patches()), sift_descriptors(patches(), root=True)
    np.testing.assert_allclose(root**2, plain / plain.sum(1, keepdims=True), atol=1e-6)


def test_a_patch_is_nearer_to_its_noisy_self_than_to_others():
    clean = patches()
    noisy = np.clip(clean + np.random.default_rng(1).normal(0, 5, clean.shape), 0, 255).astype(np.uint8)
    distances = np.linalg.norm(sift_descriptors(clean)[:, None] - sift_descriptors(noisy)[None], axis=2)
    np.testing.assert_array_equal(distances.argmin(1), range(4))


def test_flat_and_no_patches():
    assert np.isfinite(sift_descriptors(np.full((1, 32, 32), 9, np.uint8), root=True)).all()
    assert sift_descriptors(np.empty((0, 32, 32), np.uint8)).shape == (0, 128)
