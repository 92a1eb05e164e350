"""Batches: a pure function, no identity twice, augmentation alike for both patches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csametric.data.sampling import pair_batch, steps_per_epoch
from csametric.errors import UserError


def numbered(identities: int, views: int = 3) -> np.ndarray:
    """Patches whose upper left pixel tells the identity and whose second pixel tells the view; nothing symmetric."""
    patches = np.zeros((identities, views, 32, 32), np.uint8)
    patches[..., 0, 0] = np.arange(identities)[:, None]
    patches[..., 0, 1] = np.arange(views) + 100
    patches[..., 5, 9] = 200
    return patches


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 40), st.integers(2, 10), st.integers(1, 2), st.integers(0, 50), st.integers(0, 9))
def test_an_epoch_shows_no_identity_twice(identities, batch_size, world_size, first_epoch, seed):
    if identities < batch_size * world_size:
        return
    steps = steps_per_epoch(identities, batch_size, world_size)
    seen = [
        identity
        for step in range(first_epoch * steps, (first_epoch + 1) * steps)
        for rank in range(world_size)
        for identity in pair_batch(
            numbered(identities), step, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size
        ).identities
    ]
    assert len(seen) == len(set(seen)) == steps * batch_size * world_size


def test_a_batch_is_a_function_of_seed_and_step():
    draw = [pair_batch(numbered(30), step, batch_size=8, seed=seed).patches for step, seed in ((5, 1), (5, 1), (6, 1), (5, 2))]
    np.testing.assert_array_equal(draw[0], draw[1])
    assert (draw[0] != draw[2]).any()
    assert (draw[0] != draw[3]).any()


def test_pairs_are_two_views_of_one_thing_augmented_alike():
    turns = set()
    for step in range(20):
        batch = pair_batch(numbered(40), step, batch_size=8, seed=0)
        for identity, anchor, positive in zip(batch.identities, *batch.patches, strict=True):
            marks = [np.argwhere(patch == 200)[0] for patch in (anchor, positive)]
            np.testing.assert_array_equal(*marks)
            turns.add(tuple(marks[0]))
            views = [set(patch[patch >= 100]) - {200} for patch in (anchor, positive)]
            assert views[0] != views[1]
            assert identity in anchor or identity == 0
    assert turns == {(5, 9), (9, 5), (5, 22), (9, 26)}


def test_too_few_keypoints():
    with pytest.raises(UserError, match=r"30 keypoints cannot fill a batch of 64 .* lower batch_size"):
        pair_batch(numbered(30), 0, batch_size=64, seed=0)
