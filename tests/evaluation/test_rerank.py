"""k-reciprocal re-ranking equals its definition, written as dense loops over sets."""

import math

import numpy as np
import pytest

from csametric import k_reciprocal_distances
from csametric.errors import UserError
from csametric.evaluation.rerank import rerank_distances


def by_sets(squared, queries, k1, k2, lambda_value):
    """Section 3 of Zhong et al. 2017 as in its public code: k + 1 neighbours including itself, half of k1 rounded to even."""
    size = len(squared)
    scaled = squared / squared.max(0, keepdims=True)
    scaled = scaled.T
    ranked = np.argsort(scaled, axis=1)

    def reciprocal(i, k):
        return {int(j) for j in ranked[i, : k + 1] if i in ranked[j, : k + 1]}

    encodings = np.zeros((size, size))
    for i in range(size):
        neighbours = reciprocal(i, k1)
        members = set(neighbours)
        for candidate in neighbours:
            half = reciprocal(candidate, round(k1 / 2))
            if len(half & neighbours) > 2 / 3 * len(half):
                members |= half
        for j in members:
            encodings[i, j] = math.exp(-scaled[i, j])
        encodings[i] /= encodings[i].sum()
    encodings = np.stack([encodings[ranked[i, :k2]].mean(0) for i in range(size)])
    distances = np.zeros((queries, size - queries))
    for i in range(queries):
        for j in range(queries, size):
            jaccard = 1 - np.minimum(encodings[i], encodings[j]).sum() / np.maximum(encodings[i], encodings[j]).sum()
            distances[i, j - queries] = (1 - lambda_value) * jaccard + lambda_value * scaled[i, j]
    return distances


def clustered(seed, size=60):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((8, 5))[rng.integers(0, 8, size)] + 0.4 * rng.standard_normal((size, 5))).astype(np.float32)


@pytest.mark.parametrize(("k1", "k2", "lambda_value"), [(20, 6, 0.3), (7, 1, 0.0), (5, 3, 1.0), (6, 2, 0.5)])
def test_reranking_equals_the_definition(k1, k2, lambda_value):
    features = clustered(k1)
    squared = np.square(features[:, None].astype(float) - features[None]).sum(2)
    expected = by_sets(squared, 12, k1, k2, lambda_value)
    reranked = k_reciprocal_distances(features[:12], features[12:], k1, k2, lambda_value)
    np.testing.assert_allclose(reranked, expected, atol=1e-5)
    np.testing.assert_allclose(rerank_distances(squared, 12, k1, k2, lambda_value), expected, atol=1e-5)


def test_a_lambda_of_one_keeps_the_order_of_the_distances():
    features = clustered(3)
    reranked = k_reciprocal_distances(features[:5], features[5:], lambda_value=1.0)
    distances = np.linalg.norm(features[:5, None] - features[None, 5:], axis=2)
    assert (np.argsort(reranked, 1) == np.argsort(distances, 1)).all()


def test_invalid_arguments_are_refused():
    features = clustered(0)
    with pytest.raises(UserError, match=r"1 <= k2 <= k1 and .*got k1=3, k2=6"):
        k_reciprocal_distances(features[:10], features[10:], k1=3)
    with pytest.raises(UserError, match="k1=60 needs at least 61 images, query and gallery together, got 60; evaluate without"):
        k_reciprocal_distances(features[:10], features[10:], k1=60)
    with pytest.raises(UserError, match="all features are the same, so re-ranking has nothing to order"):
        k_reciprocal_distances(np.ones((10, 3)), np.ones((20, 3)))
    with pytest.raises(UserError, match="the same dimensions"):
        k_reciprocal_distances(features[:10], features[10:, :3])
    with pytest.raises(UserError, match="NaN or infinite"):
        k_reciprocal_distances(features[:10] * np.inf, features[10:])
