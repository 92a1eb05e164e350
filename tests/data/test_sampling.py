"""Batches of pairs: a pure function of seed and step, no identity twice, both patches of a pair augmented alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csametric.data.sampling import pair_batch, steps_per_epoch
from csametric.errors import UserError


def numbered_patches(identities: int, views: int = 3) -> np.ndarray:
    """Patches whose first pixel is the identity and whose second one is the view + 100; no two turns look alike."""
    patches = np.zeros((identities, views, 32, 32), np.uint8)
    patches[..., 0, 0] = np.arange(identities)[:, None]
    patches[..., 0, 1] = np.arange(views) + 100
    patches[..., 5, 9] = 200
    return patches


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 40), st.integers(2, 10), st.integers(1, 2), st.integers(0, 50), st.integers(0, 9))
def test_an_epoch_has_no_identity_twice(identities, batch_size, world_size, first_epoch, seed):
    if identities < batch_size * world_size:
        return
    steps = steps_per_epoch(identities, batch_size, world_size)
    drawn = [
        identity
        for step in range(first_epoch * steps, (first_epoch + 1) * steps)
        for rank in range(world_size)
        for identity in pair_batch(
            numbered_patches(identities), step, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size
        ).identities
    ]
    assert len(drawn) == steps * batch_size * world_size
    assert len(set(drawn)) == len(drawn)


def test_a_batch_depends_on_seed_and_step_alone():
    first, repeated, other_step, other_seed = (
        pair_batch(numbered_patches(30), step, batch_size=8, seed=seed).patches
        for step, seed in ((5, 1), (5, 1), (6, 1), (5, 2))
    )
    np.testing.assert_array_equal(first, repeated)
    assert (first != other_step).any()
    assert (first != other_seed).any()


def test_pairs_are_two_views_of_one_identity_augmented_alike():
    turns = set()
    for step in range(20):
        batch = pair_batch(numbered_patches(40), step, batch_size=8, seed=0)
        for identity, anchor, positive in zip(batch.identities, *batch.patches, strict=True):
            marks = [np.argwhere(patch == 200)[0] for patch in (anchor, positive)]
            np.testing.assert_array_equal(*marks)
            turns.add(tuple(marks[0]))
            views = [set(patch[patch >= 100]) - {200} for patch in (anchor, positive)]
            assert views[0] != views[1]
            assert identity in anchor or identity == 0
    assert turns == {(5, 9), (9, 5), (5, 22), (9, 26)}


def test_too_few_keypoints_for_a_batch_are_refused():
    with pytest.raises(UserError, match=r"30 keypoints cannot fill a batch of 64 .* lower batch_size"):
        pair_batch(numbered_patches(30), 0, batch_size=64, seed=0)
