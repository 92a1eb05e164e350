"""Re-ranking of the nearest images of a gallery."""

import numpy as np
from numpy.typing import ArrayLike

from csametric.evaluation.rerank import k_reciprocal_distances
from csametric.search.gallery import Gallery
from csametric.search.rows import Hit

CANDIDATES = 100


def search_reranked(gallery: Gallery, features: ArrayLike, k: int = 10, where: str = "") -> list[list[Hit]]:
    """Find images as `Gallery.search_features` does, and order the nearest by k-reciprocal distances (Zhong et al. 2017).

    Args:
        gallery: to search.
        features: (N, D).
        k: the number of images to find; they come from the `CANDIDATES` nearest, or from k if this is more.
        where: a condition on the rows.

    Returns:
        One list per feature, the most alike first; `Hit.distance` is still the Euclidean distance.
    """
    answers = []
    for feature_D, hits in zip(
        np.asarray(features, np.float32), gallery.search_features(features, max(k, CANDIDATES), where), strict=True
    ):
        if hits:
            distances = k_reciprocal_distances(feature_D[None], gallery.features([hit.key for hit in hits]))[0]
            hits = [hits[index] for index in np.argsort(distances, kind="stable")[:k]]
        answers.append(hits)
    return answers
