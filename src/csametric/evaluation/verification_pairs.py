"""Genuine and impostor pairs of labelled images, to calibrate and measure verification.

A genuine pair shows the same identity, an impostor pair different ones. Where images come from several cameras, genuine
pairs are across cameras: two frames of one camera are more alike than what verification will see.

Legend: N images, D dimensions of a feature, P pairs, T thresholds.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from csametric.distances import euclidean_distances
from csametric.errors import UserError

MAX_IMAGES = 2000  # above this number, identities are sampled
BLOCK = 1024  # rows of distances computed at once


class LabelledDistances(NamedTuple):
    """The distances of labelled pairs, as `calibrate_distances` takes them."""

    distances: NDArray  # float32 (P,)
    is_same: NDArray  # bool (P,), true for genuine pairs
    identities: NDArray  # (P, 2)


class Rates(NamedTuple):
    """Error rates at a threshold."""

    fmr: float  # share of impostor pairs at or below it
    fnmr: float  # share of genuine pairs above it


def labelled_distances(
    features: ArrayLike, identities: ArrayLike, cameras: ArrayLike | None = None, max_images: int = MAX_IMAGES, seed: int = 0
) -> LabelledDistances:
    """The Euclidean distances of all pairs of images, except genuine pairs from the same camera.

    If there are more than `max_images` images, whole identities are sampled at random up to that number.

    Args:
        features: (N, D).
        identities: (N,), any labels.
        cameras: (N,), or None if unknown. If there is only one, genuine pairs from the same camera are kept.
        max_images: above this number, identities are sampled; the number of pairs grows with its square.
        seed: random seed of the sampling.

    Raises:
        UserError: sizes that do not agree, a single identity, or none with two images from different cameras.

    Examples:
        >>> labelled = labelled_distances([[0.0], [3.0], [7.0]], ["anna", "anna", "bert"], cameras=[1, 2, 1])
        >>> labelled.distances.tolist(), labelled.is_same.tolist()
        ([3.0, 7.0, 4.0], [True, False, False])
    """
    features_ND, identity_N, camera_N = _numbered(features, identities, cameras)
    kept = _draw_identities(identity_N, max_images, seed)
    features_ND, identity_N, camera_N = features_ND[kept], identity_N[kept], camera_N[kept]
    distances, same, owners = [], [], []
    for start, block in _upper_blocks(features_ND):
        rows, columns = np.triu_indices(len(block), 1, block.shape[1])
        first, second = rows + start, columns + start
        is_same = identity_N[first] == identity_N[second]
        used = ~is_same | (camera_N[first] != camera_N[second])
        distances.append(block[rows[used], columns[used]])
        same.append(is_same[used])
        owners.append(np.stack([identity_N[first[used]], identity_N[second[used]]], 1))
    return LabelledDistances(np.concatenate(distances), np.concatenate(same), np.concatenate(owners))


def measure_rates(
    features: ArrayLike, identities: ArrayLike, thresholds: ArrayLike, cameras: ArrayLike | None = None
) -> list[Rates]:
    """The error rates over all pairs of images at given thresholds; arguments and exceptions are those of `labelled_distances`.

    Examples:
        >>> measure_rates([[0.0], [3.0], [7.0]], ["anna", "anna", "bert"], thresholds=[3.5, 5.0])
        [Rates(fmr=0.0, fnmr=0.0), Rates(fmr=0.5, fnmr=0.0)]
    """
    features_ND, identity_N, camera_N = _numbered(features, identities, cameras)
    thresholds_T = np.asarray(thresholds, np.float64)
    accepted_2T, pairs_2 = np.zeros((2, len(thresholds_T))), np.zeros(2)  # impostor and genuine pairs
    for start, block in _upper_blocks(features_ND):
        stop = start + len(block)
        is_pair = np.triu(np.ones(block.shape, bool), 1)
        is_same = identity_N[start:stop, None] == identity_N[None, start:]
        other_camera = camera_N[start:stop, None] != camera_N[None, start:]
        for group, members in enumerate((is_pair & ~is_same, is_pair & is_same & other_camera)):
            distances = block[members]
            pairs_2[group] += len(distances)
            accepted_2T[group] += [(distances <= threshold).sum() for threshold in thresholds_T]
    accepted_impostor_T, accepted_genuine_T = accepted_2T / pairs_2[:, None]
    return [
        Rates(fmr=float(impostor), fnmr=float(1 - genuine))
        for impostor, genuine in zip(accepted_impostor_T, accepted_genuine_T, strict=True)
    ]


def _numbered(features: ArrayLike, identities: ArrayLike, cameras: ArrayLike | None) -> tuple[NDArray, NDArray, NDArray]:
    """Features, and identities and cameras as numbers from 0; unless there are several cameras, each image gets its own."""
    features_ND = np.asarray(features, np.float32)
    labels = np.asarray(identities)
    if features_ND.ndim != 2 or labels.shape != features_ND.shape[:1]:
        raise UserError(f"features {features_ND.shape} and identities {labels.shape} must be (N, D) and (N,)")
    identity_N = np.unique(labels, return_inverse=True)[1].reshape(-1)
    camera_N = np.arange(len(labels))
    if cameras is not None:
        if np.shape(cameras) != labels.shape:
            raise UserError(f"cameras {np.shape(cameras)} and identities {labels.shape} must have the same length")
        names, numbers = np.unique(np.asarray(cameras), return_inverse=True)
        camera_N = numbers.reshape(-1) if len(names) > 1 else camera_N
    if len(labels) == 0 or not identity_N.any():
        raise UserError("verification needs images of several identities, got one; add images of others")
    if len(np.unique(np.stack([identity_N, camera_N]), axis=1).T) == identity_N.max() + 1:
        where = "" if cameras is None or (camera_N == np.arange(len(labels))).all() else " from different cameras"
        raise UserError(f"verification needs identities with two images{where}, got none; add images")
    return features_ND, identity_N, camera_N


def _draw_identities(identity_N: NDArray, max_images: int, seed: int) -> NDArray:
    """Sorted indices of the images of randomly sampled identities, at most `max_images` images."""
    images_of = np.bincount(identity_N)
    order = np.random.default_rng(seed).permutation(len(images_of))
    number = max(2, int(np.searchsorted(images_of[order].cumsum(), max_images, side="right")))
    return np.flatnonzero(np.isin(identity_N, order[:number]))


def _upper_blocks(features_ND: NDArray) -> Iterator[tuple[int, NDArray]]:
    """Blocks of the matrix of distances, each starting at its diagonal: (first row, (at most BLOCK, N - first row))."""
    features = torch.from_numpy(features_ND)
    for start in range(0, len(features), BLOCK):
        yield start, euclidean_distances(features[start : start + BLOCK], features[start:]).numpy()
