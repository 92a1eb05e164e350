"""Compact features: against the exact decomposition, stored and read, damaged."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from csametric.errors import UserError
from csametric.inference.compact import COMPACT, fit_compact, images_to_fit, read_compact, write_compact


def features(images: int = 200, dimensions: int = 24, seed: int = 0) -> np.ndarray:
    """Features whose variance falls from dimension to dimension, turned at random."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0]
    return ((rng.normal(size=(images, dimensions)) * 0.7 ** np.arange(dimensions)) @ axes + 3).astype(np.float32)


def test_components_are_those_of_the_exact_decomposition():
    values = features()
    compact = fit_compact(values)
    _, scales, axes = np.linalg.svd(values - values.mean(0), full_matrices=False)
    np.testing.assert_allclose(compact.deviations, scales / np.sqrt(199), rtol=1e-4)
    cosines = np.abs((compact.components * axes).sum(1))
    np.testing.assert_allclose(cosines[:12], 1, atol=1e-3)


def test_all_components_keep_distances_and_fewer_keep_them_almost():
    values = features()
    compact = fit_compact(values)
    exact = np.linalg.norm(values[:50, None] - values[None, :50], axis=2)
    for dimensions, tolerance in ((24, 0.01), (12, 0.05)):
        projected = compact.project(values[:50], dimensions)
        distances = np.linalg.norm(projected[:, None] - projected[None], axis=2)
        np.testing.assert_allclose(distances, exact, atol=tolerance)


def test_whitened_features_have_unit_length_and_equal_variances():
    values = features(images=5000)
    whitened = fit_compact(values).project(values, 8, whiten=True)
    np.testing.assert_allclose(np.linalg.norm(whitened, axis=1), 1, atol=1e-5)
    variances = whitened.var(0)
    assert variances.max() / variances.min() < 1.2


def test_a_fit_is_repeatable_and_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    first, second = fit_compact(features()), fit_compact(features())
    np.testing.assert_array_equal(first.components, second.components)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("images", "components"), [(5, 4), (200, 24)])
def test_there_are_fewer_components_than_images(images, components):
    assert len(fit_compact(features(images)).components) == components


def test_images_are_spread_evenly():
    chosen = images_to_fit(100_000)
    assert len(chosen) == 8192
    assert (chosen[0], chosen[-1]) == (0, 99_999)


def test_a_projection_comes_back_as_it_was_written(tmp_path):
    assert read_compact(tmp_path, 24) is None
    compact = fit_compact(features())
    write_compact(tmp_path, compact)
    again = read_compact(tmp_path, 24)
    values = features(seed=1)
    np.testing.assert_array_equal(again.project(values, 7), compact.project(values, 7))


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x08" + 7 * b"\0" + b"{}      "])
def test_damage_is_named(content, tmp_path):
    (tmp_path / COMPACT).write_bytes(content)
    with pytest.raises(UserError, match=r"compact\.safetensors is damaged"):
        read_compact(tmp_path, 24)


@pytest.mark.parametrize(
    "damage", [{"mean": torch.zeros(3)}, {"deviations": torch.zeros(2)}, {"mean": torch.full((24,), torch.nan)}]
)
def test_tensors_that_do_not_fit_are_named(damage, tmp_path):
    tensors = {"mean": torch.zeros(24), "components": torch.zeros(5, 24), "deviations": torch.ones(5)}
    save_file(tensors | damage, tmp_path / COMPACT)
    with pytest.raises(UserError, match=r"compact\.safetensors is damaged .*; remove it"):
        read_compact(tmp_path, 24)


def test_more_dimensions_than_components_are_refused():
    compact = fit_compact(features())
    with pytest.raises(UserError, match="dimensions must be from 1 to 24, the number of components fitted, got 25"):
        compact.project(features(), 25)
    with pytest.raises(UserError, match="need at least 2 training images, got 1"):
        fit_compact(features(1))
