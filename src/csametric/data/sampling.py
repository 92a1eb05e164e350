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
