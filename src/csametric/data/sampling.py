"""Batch sampling: which patches or images make which batch, as a pure function of seed, step, rank and world size.

Legend: K keypoints, V views of each, P patches, B pairs in a batch, N images, S side of a patch in pixels.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csametric.errors import UserError

Turn = Literal["transpose", "rotate"]  # "transpose" is what public code calls the rotation by 90 degrees; "rotate" is one


class PairBatch(NamedTuple):
    """One rank's share of a batch of pairs; all identities in the whole batch are different."""

    identities: NDArray  # (B,)
    patches: NDArray  # uint8 (2, B, S, S), anchors and positives


def steps_per_epoch(identities: int, batch_size: int, world_size: int = 1) -> int:
    """Count the full batches in one pass over the identities.

    Args:
        identities: the number of keypoints.
        batch_size: pairs per rank.
        world_size: the number of ranks.

    Raises:
        UserError: there are fewer identities than one batch of all ranks needs.

    Examples:
        >>> steps_per_epoch(1000, batch_size=128, world_size=2)
        3
    """
    steps = identities // (batch_size * world_size)
    if steps == 0:
        raise UserError(
            f"{identities} keypoints cannot fill a batch of {batch_size * world_size} without repeating one; "
            "add photographs or lower batch_size"
        )
    return steps


def pair_batch(
    patches_KVSS: NDArray, step: int, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
) -> PairBatch:
    """Draw the pairs of a step, two different views of each keypoint.

    Every epoch visits the keypoints in a new random order. Both patches of a pair are transposed and mirrored alike, at
    random.

    Args:
        patches_KVSS: uint8 (K, V, S, S), V views of each keypoint.
        step: counted from 0 over all epochs.
        batch_size: pairs per rank.
        seed: of the run.
        rank: of this process.
        world_size: the number of ranks.

    Raises:
        UserError: there are fewer keypoints than one batch of all ranks needs.

    Examples:
        >>> batch = pair_batch(np.zeros((10, 4, 32, 32), np.uint8), step=0, batch_size=8, seed=0)
        >>> batch.patches.shape, len(set(batch.identities.tolist()))
        ((2, 8, 32, 32), 8)
    """
    # Identities: drawn alike by all ranks, of which each takes its own slice.
    epoch, position = divmod(step, steps_per_epoch(len(patches_KVSS), batch_size, world_size))
    order = np.random.default_rng((seed, 0, epoch)).permutation(len(patches_KVSS))
    start = (position * world_size + rank) * batch_size
    identities = order[start : start + batch_size]

    # Views: the offset from 1 to V - 1 makes the positive another view than the anchor.
    rng = np.random.default_rng((seed, 1, step, rank))
    views = patches_KVSS.shape[1]
    anchor_views = rng.integers(views, size=batch_size)
    positive_views = (anchor_views + rng.integers(1, views, size=batch_size)) % views
    patches = np.stack([patches_KVSS[identities, anchor_views], patches_KVSS[identities, positive_views]])
    return PairBatch(identities, _turn_at_random(patches, "transpose", rng))


class PointIndex(NamedTuple):
    """The patches of each 3D point: those of point i are `order[starts[i] : starts[i] + counts[i]]`."""

    order: NDArray  # (P,), indices of patches, grouped by point
    starts: NDArray  # for each point, where its group begins
    counts: NDArray  # for each point, its number of patches, at least 2


def index_points(points_P: NDArray) -> PointIndex:
    """Group patches by the point they show, leaving out points with a single patch.

    Args:
        points_P: (P,), the point of each patch.

    Examples:
        >>> index = index_points(np.array([7, 3, 7, 9, 9, 9]))
        >>> index.order[index.starts[0] : index.starts[0] + index.counts[0]].tolist()  # the patches of point 7
        [0, 2]
    """
    order = np.argsort(points_P, kind="stable")
    _, starts, counts = np.unique(points_P[order], return_index=True, return_counts=True)
    return PointIndex(order, starts[counts > 1], counts[counts > 1])


def point_batch(
    patches_PSS: NDArray,
    index: PointIndex,
    step: int,
    *,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    turn: Turn = "transpose",
) -> PairBatch:
    """Draw the pairs of a step, two different patches of each 3D point (HardNet's sampler, Mishchuk et al. 2017).

    Each step draws its points independently; a batch never has a point twice. Both patches of a pair are turned and mirrored
    alike, at random.

    Args:
        patches_PSS: uint8 (P, S, S).
        index: from `index_points`.
        step: counted from 0.
        batch_size: pairs per rank.
        seed: of the run.
        rank: of this process.
        world_size: the number of ranks.
        turn: "transpose", which public code calls the rotation by 90 degrees, or "rotate" for a true rotation.

    Raises:
        UserError: there are fewer points with two patches than one batch of all ranks needs.

    Examples:
        >>> index = index_points(np.array([0, 0, 1, 1, 2, 2]))
        >>> point_batch(np.zeros((6, 32, 32), np.uint8), index, step=0, batch_size=2, seed=0).patches.shape
        (2, 2, 32, 32)
    """
    needed = batch_size * world_size
    if len(index.counts) < needed:
        raise UserError(f"{len(index.counts)} points with two patches cannot fill a batch of {needed}; lower batch_size")
    # Points: drawn alike by all ranks, of which each takes its own slice.
    batch_points = np.random.default_rng((seed, 0, step)).choice(len(index.counts), needed, replace=False)
    points = batch_points[rank * batch_size : (rank + 1) * batch_size]

    # Patches: the offset from 1 to count - 1 makes the positive another patch than the anchor.
    rng = np.random.default_rng((seed, 1, step, rank))
    counts = index.counts[points]
    anchors = rng.integers(counts)
    positives = (anchors + rng.integers(1, counts)) % counts
    patches_2B = index.order[index.starts[points] + np.stack([anchors, positives])]
    return PairBatch(points, _turn_at_random(patches_PSS[patches_2B], turn, rng))


def _turn_at_random(patches_2BSS: NDArray, turn: Turn, rng: np.random.Generator) -> NDArray:
    """Turn and mirror each pair with probability 1/2 each, in place."""
    is_turned, is_mirrored = rng.random((2, patches_2BSS.shape[1])) < 0.5
    transposed = patches_2BSS[:, is_turned].swapaxes(-1, -2)
    patches_2BSS[:, is_turned] = transposed if turn == "transpose" else transposed[..., ::-1]
    patches_2BSS[:, is_mirrored] = patches_2BSS[:, is_mirrored][..., ::-1]
    return patches_2BSS


def image_steps_per_epoch(images: int, batch_size: int, world_size: int = 1) -> int:
    """Count the full batches in one pass over the images.

    Args:
        images: the number of training images.
        batch_size: images per rank.
        world_size: the number of ranks.

    Raises:
        UserError: there are fewer images than one batch of all ranks needs.

    Examples:
        >>> image_steps_per_epoch(12_936, batch_size=64)
        202
    """
    steps = images // (batch_size * world_size)
    if steps == 0:
        raise UserError(f"{images} training images cannot fill a batch of {batch_size * world_size}; lower batch_size")
    return steps


def shuffled_batch(images: int, step: int, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> NDArray:
    """Draw the images of a step from a new random order in each epoch.

    The images that do not fill a batch at the end of an epoch are left out.

    Args:
        images: the number of training images.
        step: counted from 0 over all epochs.
        batch_size: images per rank.
        seed: of the run.
        rank: of this process.
        world_size: the number of ranks.

    Returns:
        (batch_size,), indices of images.

    Raises:
        UserError: there are fewer images than one batch of all ranks needs.

    Examples:
        >>> sorted(shuffled_batch(4, step=0, batch_size=4, seed=0).tolist())
        [0, 1, 2, 3]
    """
    epoch, position = divmod(step, image_steps_per_epoch(images, batch_size, world_size))
    order = np.random.default_rng((seed, 0, epoch)).permutation(images)
    start = (position * world_size + rank) * batch_size
    return order[start : start + batch_size]


def identity_batch(
    classes_N: NDArray, step: int, *, batch_size: int, per_identity: int, seed: int, rank: int = 0, world_size: int = 1
) -> NDArray:
    """Draw the images of a step by P x K sampling: K images of each of P identities.

    Every round visits the identities in a new random order; no identity is twice in a batch of all ranks. An identity with
    fewer than K images repeats some. Epochs are as long as those of `shuffled_batch`, whatever the length of a round.

    Args:
        classes_N: (N,), the class of each image.
        step: counted from 0 over all epochs.
        batch_size: images per rank, P x K.
        per_identity: K, images of each identity.
        seed: of the run.
        rank: of this process.
        world_size: the number of ranks.

    Returns:
        (batch_size,), indices of images, K of one identity after the other.

    Raises:
        UserError: batch_size is not a multiple of `per_identity`, or there are fewer identities than one batch of all ranks
            needs.

    Examples:
        >>> classes = np.array([0, 0, 1, 1, 2, 2])
        >>> classes[identity_batch(classes, step=0, batch_size=4, per_identity=2, seed=0)].tolist()
        [2, 2, 0, 0]
    """
    if batch_size % per_identity:
        raise UserError(
            f"batch_size must be a multiple of images_per_identity={per_identity}, got {batch_size}; change one of the two"
        )
    identities_per_rank = batch_size // per_identity
    identities = np.unique(classes_N)
    steps_per_round = len(identities) // (identities_per_rank * world_size)
    if steps_per_round == 0:
        raise UserError(
            f"{len(identities)} identities cannot fill a batch of {identities_per_rank * world_size}; "
            "lower batch_size or raise images_per_identity"
        )
    # Identities: drawn alike by all ranks, of which each takes its own slice.
    round_number, position = divmod(step, steps_per_round)
    order = np.random.default_rng((seed, 0, round_number)).permutation(len(identities))
    start = (position * world_size + rank) * identities_per_rank
    batch_identities = identities[order[start : start + identities_per_rank]]

    # Images: a random choice of each identity's.
    rng = np.random.default_rng((seed, 1, step, rank))
    return np.concatenate([_draw(rng, np.flatnonzero(classes_N == identity), per_identity) for identity in batch_identities])


def _draw(rng: np.random.Generator, images: NDArray, count: int) -> NDArray:
    """Draw `count` of the images without repetition, or repeat them if there are fewer."""
    return np.resize(rng.permutation(images), count)
