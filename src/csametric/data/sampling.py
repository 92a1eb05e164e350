"""Which patches make which batch: a pure function of seed, step, rank and world size."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csametric.errors import UserError

Turn = Literal["transpose", "rotate"]


class PairBatch(NamedTuple):
    """One rank's share of a batch: B identities, no two alike in the whole batch, and two views of each.

    identities: (B,). patches: uint8 (2, B, 32, 32), anchors and positives.
    """

    identities: NDArray
    patches: NDArray


def steps_per_epoch(identities: int, batch_size: int, world_size: int = 1) -> int:
    """Whole batches in one pass over the identities.

    Raises:
        UserError: fewer identities than one batch needs.
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
    """The pairs of a step: a fresh order of the identities each epoch, two different views of each, transposed and
    mirrored at random, alike for both patches of a pair (what public code calls the 90 degree rotation is a transpose).
    """
    epoch, position = divmod(step, steps_per_epoch(len(patches_KVSS), batch_size, world_size))
    order = np.random.default_rng((seed, 0, epoch)).permutation(len(patches_KVSS))
    first = (position * world_size + rank) * batch_size
    identities = order[first : first + batch_size]
    rng = np.random.default_rng((seed, 1, step, rank))
    views = patches_KVSS.shape[1]
    anchor_views = rng.integers(views, size=batch_size)
    positive_views = (anchor_views + rng.integers(1, views, size=batch_size)) % views
    patches = np.stack([patches_KVSS[identities, anchor_views], patches_KVSS[identities, positive_views]])
    return PairBatch(identities, _turned_at_random(patches, "transpose", rng))


class PointIndex(NamedTuple):
    """The patches of each 3D point that has two or more: those of point i are order[starts[i] : starts[i] + counts[i]]."""

    order: NDArray
    starts: NDArray
    counts: NDArray


def index_points(points_P: NDArray) -> PointIndex:
    """Group patches by the point they show; points with one patch are left out.

    Args:
        points_P: (P,), the point of each patch.
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
    """The pairs of a step: points drawn at random, no two alike in the whole batch, two different patches of each, turned and
    mirrored at random, alike for both (HardNet's sampler, Mishchuk et al. 2017).

    Args:
        turn: "transpose", which public code calls the rotation by 90 degrees, or "rotate" by 90 degrees indeed.

    Raises:
        UserError: fewer points with two patches than the batch of all ranks needs.
    """
    needed = batch_size * world_size
    if len(index.counts) < needed:
        raise UserError(f"{len(index.counts)} points with two patches cannot fill a batch of {needed}; lower batch_size")
    drawn = np.random.default_rng((seed, 0, step)).choice(len(index.counts), needed, replace=False)
    points = drawn[rank * batch_size : (rank + 1) * batch_size]
    rng = np.random.default_rng((seed, 1, step, rank))
    counts = index.counts[points]
    anchors = rng.integers(counts)
    positives = (anchors + rng.integers(1, counts)) % counts
    chosen = index.order[index.starts[points] + np.stack([anchors, positives])]
    return PairBatch(points, _turned_at_random(patches_PSS[chosen], turn, rng))


def _turned_at_random(patches_2BSS: NDArray, turn: Turn, rng: np.random.Generator) -> NDArray:
    """Each pair turned and mirrored, or not, in place."""
    turned, mirrored = rng.random((2, patches_2BSS.shape[1])) < 0.5
    transposed_2BSS = patches_2BSS[:, turned].swapaxes(-1, -2)
    patches_2BSS[:, turned] = transposed_2BSS if turn == "transpose" else transposed_2BSS[..., ::-1]
    patches_2BSS[:, mirrored] = patches_2BSS[:, mirrored][..., ::-1]
    return patches_2BSS


def shuffled_batch(images: int, step: int, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> NDArray:
    """The images of a step by their number, (batch_size,): a fresh order each epoch, the rest that fills no batch left out.

    Raises:
        UserError: fewer images than a batch of all ranks.
    """
    epoch, position = divmod(step, image_steps_per_epoch(images, batch_size, world_size))
    order = np.random.default_rng((seed, 0, epoch)).permutation(images)
    first = (position * world_size + rank) * batch_size
    return order[first : first + batch_size]


def identity_batch(
    classes_N: NDArray, step: int, *, batch_size: int, per_identity: int, seed: int, rank: int = 0, world_size: int = 1
) -> NDArray:
    """P x K sampling: the images of a step by their number, `per_identity` of each of batch_size / per_identity identities.

    The identities of all ranks come from one shuffled round after the other and differ within a batch; one with fewer
    images repeats some. An epoch has as many steps as with `shuffled_batch`.

    Raises:
        UserError: a batch size that `per_identity` does not divide, or fewer identities than a batch of all ranks needs.
    """
    if batch_size % per_identity:
        raise UserError(f"batch_size={batch_size} is no multiple of images_per_identity={per_identity}; choose one that is")
    each = batch_size // per_identity
    owners = np.unique(classes_N)
    rounds = len(owners) // (each * world_size)
    if rounds == 0:
        raise UserError(
            f"{len(owners)} identities cannot fill a batch of {each * world_size}; "
            "lower batch_size or raise images_per_identity"
        )
    turn, position = divmod(step, rounds)
    order = np.random.default_rng((seed, 0, turn)).permutation(len(owners))
    first = (position * world_size + rank) * each
    rng = np.random.default_rng((seed, 1, step, rank))
    chosen = [_draw(rng, np.flatnonzero(classes_N == owners[owner]), per_identity) for owner in order[first : first + each]]
    return np.concatenate(chosen)


def image_steps_per_epoch(images: int, batch_size: int, world_size: int = 1) -> int:
    """Whole batches in one pass over the images.

    Raises:
        UserError: fewer images than one batch needs.
    """
    steps = images // (batch_size * world_size)
    if steps == 0:
        raise UserError(f"{images} training images cannot fill a batch of {batch_size * world_size}; lower batch_size")
    return steps


def _draw(rng: np.random.Generator, numbers: NDArray, count: int) -> NDArray:
    return np.resize(rng.permutation(numbers), count)
