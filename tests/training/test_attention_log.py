"""Snapshots of attention: statistics of each layer, and a picture of the most used maps."""

import cv2
import numpy as np
import torch

from csametric.attention.recording import Attended
from csametric.attention.reference import AttentionMaps
from csametric.inference.patches import make_embedder
from csametric.models.l2net import L2Net
from csametric.runs.precision import choose_precision
from csametric.training.attention_log import BASE_MAPS, draw_base_maps, snapshot_attention


def test_the_most_used_maps_are_drawn_beside_their_image():
    base = torch.zeros(1, 1, 10, 2, 2)
    for number in range(10):
        base[0, 0, number, number % 2, number // 2 % 2] = 1.0
    weights = torch.arange(10.0)[None, None, :, None, None].expand(1, 1, 10, 2, 2) / 45
    images = np.full((1, 16, 8, 3), 7, np.uint8)
    picture = draw_base_maps(images, Attended(AttentionMaps(base, weights), 1.0))
    assert picture.shape == (16, 8 * (1 + BASE_MAPS), 3)
    assert (picture[:, :8] == 7).all()
    brightness = cv2.cvtColor(picture[:, 8:16], cv2.COLOR_RGB2GRAY)
    assert np.unravel_index(brightness.argmax(), brightness.shape) == (12, 0), "map 9 is bright at the lower left"


def test_a_snapshot_describes_every_layer_and_keeps_the_training_mode():
    network, cpu = L2Net("csa", maps=4), torch.device("cpu")
    embed = make_embedder(network, cpu, choose_precision("fp32", cpu))
    patches = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    snapshot = snapshot_attention(network, embed, patches)
    assert set(snapshot.numbers) == {"attention1_entropy", "attention1_overlap", "attention1_used_maps"}
    assert snapshot.usage["attention1"].shape == (4,)
    np.testing.assert_allclose(snapshot.usage["attention1"].sum(), 1, rtol=1e-5)
    assert snapshot.pictures["attention1"].shape == (96, 32 * 5, 3)
    assert network.training
    plain_network = L2Net()
    plain_embed = make_embedder(plain_network, cpu, choose_precision("fp32", cpu))
    assert snapshot_attention(plain_network, plain_embed, patches).numbers == {}
