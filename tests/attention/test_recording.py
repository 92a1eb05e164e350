"""What is recorded is what the layer says of its input, and recording leaves the network as it was."""

from threading import Thread

import torch
from torch import nn

from csametric import CompressedSelfAttention, L2Net
from csametric.attention.recording import recorded_attention


def test_the_maps_are_those_of_the_layers_input():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), CompressedSelfAttention(8, maps=4, alpha=0.5), CompressedSelfAttention(8, maps=2, groups=1)
    ).eval()
    images = torch.randn(2, 3, 9, 7)
    with torch.inference_mode(), recorded_attention(network) as found:
        network(images)
        expected = network[1].attention(network[0](images))
    assert list(found) == ["1", "2"]
    assert found["1"].alpha == 0.5
    assert found["2"].maps.base.shape == (2, 1, 2, 7, 5)
    torch.testing.assert_close(found["1"].maps.base, expected.base)
    torch.testing.assert_close(found["1"].maps.weights, expected.weights)


def test_nothing_is_left_behind():
    network = L2Net(attention="csa")
    with recorded_attention(network):
        pass
    assert not network.attention._forward_pre_hooks


def test_a_network_without_the_layer_records_nothing():
    network = L2Net().eval()
    with torch.inference_mode(), recorded_attention(network) as found:
        network(torch.randn(2, 1, 32, 32))
    assert found == {}


def test_forwards_of_other_threads_are_not_recorded():
    network = L2Net(attention="csa").eval()
    with torch.inference_mode(), recorded_attention(network) as found:
        other = Thread(target=lambda: network(torch.randn(2, 1, 32, 32)))
        other.start()
        other.join()
        assert found == {}
        network(torch.randn(2, 1, 32, 32))
    assert len(found) == 1
