"""Local frames describe keypoints as documented, and detectors rotate with the photograph."""

import cv2
import numpy as np
import pytest

from csametric.data.patch_views import pyramid, sample_patches
from csametric.matching.keypoints import DetectorSettings, LocalFrames, detect
from tests.matching.scenes import photograph


def test_sizes_angles_and_corners_of_a_rotated_frame():
    frames = LocalFrames(np.array([[10.0, 20.0]]), np.array([[[0.0, -4.0], [4.0, 0.0]]]), np.zeros(1, int))
    assert frames.sizes == pytest.approx([4])
    assert frames.angles == pytest.approx([90])  # the patch's x axis points down the image
    np.testing.assert_allclose(frames.corners(2.0)[0], [[14, 16], [14, 24], [6, 24], [6, 16]])


def test_oriented_patches_are_invariant_to_rotation():
    """After a quarter turn of the photograph, oriented patches of the same keypoint stay alike; upright ones do not."""
    image = photograph()
    rotated = np.ascontiguousarray(np.rot90(image, -1))
    height = len(image)
    correlation = {}
    for upright in (False, True):
        first, second = (detect(photo, DetectorSettings(limit=300, upright=upright)) for photo in (image, rotated))
        expected = np.stack([height - 1 - first.centres[:, 1], first.centres[:, 0]], 1)
        distances = np.linalg.norm(expected[:, None] - second.centres[None], axis=2)
        distances += np.abs(np.log(first.sizes[:, None] / second.sizes[None]))
        if not upright:
            turn = (second.angles[None] - first.angles[:, None] - 90 + 180) % 360 - 180
            distances += np.abs(turn) / 10
        partner = distances.argmin(1)
        is_repeated = distances[np.arange(len(partner)), partner] < 0.7
        assert is_repeated.mean() > 0.5
        patches = sample_patches(pyramid(image), first.corners(6.0))[is_repeated].astype(float)
        others = sample_patches(pyramid(rotated), second.corners(6.0))[partner[is_repeated]].astype(float)
        correlations = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(patches, others, strict=True)]
        correlation[upright] = np.median(correlations)
    assert correlation[False] > 0.95
    assert correlation[True] < 0.6


def test_the_limit_keeps_the_strongest_and_upright_keypoints_are_unique():
    image = photograph()
    unlimited = detect(image, DetectorSettings(limit=10_000))
    few = detect(image, DetectorSettings(limit=50))
    np.testing.assert_array_equal(few.centres, unlimited.centres[:50])
    upright = detect(image, DetectorSettings(limit=10_000, upright=True))
    assert (upright.angles == 0).all()
    assert len(np.unique(np.column_stack([upright.centres, upright.sizes]), axis=0)) == len(upright.sizes)
    assert len(upright.sizes) < len(unlimited.sizes)


def test_frames_match_the_keypoints_of_opencv():
    image = photograph()
    frames = detect(image, DetectorSettings(limit=40))
    points = cv2.SIFT.create(contrastThreshold=0.01).detect(image, None)
    strongest = sorted(points, key=lambda point: -point.response)[:40]
    np.testing.assert_allclose(sorted(frames.sizes), sorted(point.size for point in strongest), rtol=1e-6)
    np.testing.assert_allclose(sorted(frames.angles), sorted(point.angle % 360 for point in strongest), atol=1e-4)


@pytest.mark.parametrize("detector", ["hessian", "harris", "gftt"])
def test_kornia_detectors_give_valid_frames(detector):
    pytest.importorskip("kornia")
    image = photograph(160, 200)
    frames = detect(image, DetectorSettings(detector=detector, limit=60, affine=True))
    assert 20 < len(frames.sizes) <= 60
    assert (frames.sizes > 0).all()
    assert (frames.centres >= 0).all()
    assert (frames.centres < [200, 160]).all()
    plain = detect(image, DetectorSettings(detector=detector, limit=60, upright=True))
    assert np.allclose(plain.angles % 360, 0, atol=1e-3)


def test_a_uniform_photograph_has_no_keypoints():
    assert len(detect(np.full((100, 100), 90, np.uint8), DetectorSettings()).sizes) == 0
