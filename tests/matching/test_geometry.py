"""Two-view geometry is recovered from matches with outliers among them."""

import numpy as np
import pytest

from csametric.evaluation.homography import transfer
from csametric.evaluation.pose import pose_error
from csametric.matching.geometry import estimate_geometry, estimate_pose
from tests.matching.scenes import turn_and_shrink


def test_a_homography_is_recovered_despite_outliers():
    rng = np.random.default_rng(0)
    true = turn_and_shrink()
    points = rng.uniform(0, 400, (200, 2))
    targets = transfer(true, points) + rng.normal(0, 0.3, (200, 2))
    targets[:80] = rng.uniform(0, 400, (80, 2))
    geometry = estimate_geometry(points, targets)
    assert np.linalg.norm(transfer(geometry.matrix, points[80:]) - transfer(true, points[80:]), axis=1).max() < 1
    assert geometry.inliers[80:].mean() > 0.95
    assert geometry.inliers[:80].mean() < 0.1


def two_views(rng):
    """Two calibrated views of the same points: intrinsics, relative pose, and image points in both."""
    camera = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    angle = np.radians(12)
    rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    translation = np.array([1.0, 0.2, 0.1])
    points = np.column_stack([rng.uniform(-2, 2, (150, 2)), rng.uniform(4, 9, 150)])
    homogeneous = [(camera @ in_camera.T).T for in_camera in (points, points @ rotation.T + translation)]
    first, second = (projected[:, :2] / projected[:, 2:] for projected in homogeneous)
    return camera, rotation, translation, first, second


def test_a_pose_and_a_fundamental_matrix_are_recovered_despite_outliers():
    rng = np.random.default_rng(1)
    camera, rotation, translation, first, second = two_views(rng)
    second[:30] = rng.uniform(0, 480, (30, 2))
    pose = estimate_pose(first, second, camera, camera)
    assert pose_error(pose.rotation, pose.translation, rotation, translation) < 1
    geometry = estimate_geometry(first, second, "fundamental", threshold=1.0)
    ones = np.ones((len(first), 1))
    lines = np.hstack([first, ones]) @ geometry.matrix.T
    residuals = np.abs((lines * np.hstack([second, ones])).sum(1)) / np.linalg.norm(lines[:, :2], axis=1)
    assert np.median(residuals[30:]) < 0.1
    assert geometry.inliers[30:].mean() > 0.95


@pytest.mark.parametrize(("model", "least"), [("homography", 4), ("fundamental", 8)])
def test_too_few_matches_give_no_geometry(model, least):
    points = np.random.default_rng(0).uniform(0, 100, (least - 1, 2))
    geometry = estimate_geometry(points, points + 1, model)
    assert geometry.matrix is None
    assert not geometry.inliers.any()
    assert estimate_pose(points[:4], points[:4], np.eye(3), np.eye(3)) is None
