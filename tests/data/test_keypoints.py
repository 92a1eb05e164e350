"""Keypoints: inside the photograph, apart from each other, strongest first."""

import cv2
import numpy as np

from csametric.data.keypoints import detect_keypoints, keypoint_patches


def test_regions_lie_inside_the_photograph_and_apart(photo_folder):
    image = cv2.imread(str(photo_folder / "photo0.png"), cv2.IMREAD_GRAYSCALE)
    keypoints = detect_keypoints(image, 1000)
    assert len(keypoints.sizes) > 20
    corners = keypoints.corners()
    assert (corners >= 0).all()
    assert (corners <= np.array([image.shape[1] - 1, image.shape[0] - 1])).all()
    distances = np.linalg.norm(keypoints.centres[:, None] - keypoints.centres[None], axis=2)
    is_similar = np.abs(np.log(keypoints.sizes[:, None] / keypoints.sizes[None])) < np.log(1.5)
    is_close = distances < 3 * np.minimum(keypoints.sizes[:, None], keypoints.sizes[None])
    assert not (is_close & is_similar & ~np.eye(len(distances), dtype=bool)).any()


def test_the_limit_keeps_the_strongest_keypoints(photo_folder):
    image = cv2.imread(str(photo_folder / "photo0.png"), cv2.IMREAD_GRAYSCALE)
    everything, few = detect_keypoints(image, 1000), detect_keypoints(image, 7)
    np.testing.assert_array_equal(few.centres, everything.centres[:7])
    assert keypoint_patches(image, few).shape == (7, 32, 32)


def test_a_flat_photograph_has_no_keypoints():
    keypoints = detect_keypoints(np.full((64, 64), 90, np.uint8), 10)
    assert keypoints.centres.shape == (0, 2)
    assert keypoint_patches(np.full((64, 64), 90, np.uint8), keypoints).shape == (0, 32, 32)
