"""Nearest-neighbour matching equals slow loops."""

import numpy as np
import pytest

from csametric.matching import matches
from csametric.matching.matches import match_descriptors


def unit(count: int, seed: int, dimensions: int = 6) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(count, dimensions))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def by_loops(a, b, mutual: bool, ratio: float | None) -> list[tuple[int, int]]:
    distances = np.array([[np.linalg.norm(x - y) for y in b] for x in a])
    pairs = []
    for i, row in enumerate(distances):
        j = int(row.argmin())
        if mutual and distances[:, j].argmin() != i:
            continue
        second = np.delete(row, j).min() if len(b) > 1 else np.inf
        if ratio is None or row[j] < ratio * second:
            pairs.append((i, j))
    return pairs


@pytest.mark.parametrize("mutual", [True, False])
@pytest.mark.parametrize("ratio", [None, 0.7, 0.9])
def test_matching_equals_the_loops_for_any_block_size(mutual, ratio, monkeypatch):
    a, b = unit(40, 0), unit(31, 1)
    expected = by_loops(a, b, mutual, ratio)
    for rows in (7, 4096):
        monkeypatch.setattr(matches, "_ROWS_AT_ONCE", rows)
        result = match_descriptors(a, b, mutual, ratio)
        assert [tuple(pair) for pair in result.pairs] == expected
        np.testing.assert_allclose(result.distances, [np.linalg.norm(a[i] - b[j]) for i, j in expected], atol=1e-3)


def test_one_or_zero_descriptors_can_be_matched():
    assert match_descriptors(unit(3, 0), unit(1, 1), ratio=0.5).pairs.shape == (1, 2)
    for a, b in ((0, 3), (3, 0), (0, 0)):
        assert match_descriptors(unit(a, 0).reshape(-1, 6), unit(b, 1).reshape(-1, 6)).pairs.shape == (0, 2)
