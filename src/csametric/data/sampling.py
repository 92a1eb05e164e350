"""Which patches make which batch: a pure function of seed, step, rank and world size."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csametric.errors import UserError


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
    transposed, mirrored = rng.random((2, batch_size)) < 0.5
    patches[:, transposed] = patches[:, transposed].swapaxes(-1, -2)
    patches[:, mirrored] = patches[:, mirrored][..., ::-1]
    return PairBatch(identities, patches)


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
