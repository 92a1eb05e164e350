"""A look at attention: numbers of each layer, and a picture of the maps that are used most."""

import cv2
import numpy as np
import torch

from csametric.attention.recording import Attended
from csametric.attention.reference import AttentionMaps
from csametric.inference.patches import embedder
from csametric.models.l2net import L2Net
from csametric.runs.precision import choose_precision
from csametric.training.attention_log import BASE_MAPS, look, picture


def test_the_most_used_maps_stand_beside_their_image():
    base = torch.zeros(1, 1, 10, 2, 2)
    for number in range(10):
        base[0, 0, number, number % 2, number // 2 % 2] = 1.0
    weights = torch.arange(10.0)[None, None, :, None, None].expand(1, 1, 10, 2, 2) / 45
    images = np.full((1, 16, 8, 3), 7, np.uint8)
    drawn = picture(images, Attended(AttentionMaps(base, weights), 1.0))
    assert drawn.shape == (16, 8 * (1 + BASE_MAPS), 3)
    assert (drawn[:, :8] == 7).all()
    brightness = cv2.cvtColor(drawn[:, 8:16], cv2.COLOR_RGB2GRAY)
    assert np.unravel_index(brightness.argmax(), brightness.shape) == (12, 0), "map 9 lights the lower left"


def test_a_network_is_looked_at_with_its_images():
    network, cpu = L2Net("csa", maps=4), torch.device("cpu")
    run = embedder(network, cpu, choose_precision("fp32", cpu))
    patches = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    seen = look(network, run, patches)
    assert set(seen.numbers) == {"attention1_entropy", "attention1_overlap", "attention1_used_maps"}
    assert seen.usage["attention1"].shape == (4,)
    np.testing.assert_allclose(seen.usage["attention1"].sum(), 1, rtol=1e-5)
    assert seen.pictures["attention1"].shape == (96, 32 * 5, 3)
    assert network.training
    assert look(L2Net(), embedder(L2Net(), cpu, choose_precision("fp32", cpu)), patches).numbers == {}
