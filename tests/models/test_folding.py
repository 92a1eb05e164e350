"""BatchNorms are folded into convolutions where the output stays the same, and nowhere else."""

import pytest
import timm
import torch
from torch import Tensor, nn

from csametric import PCB
from csametric.models.folding import fold_batch_norms


def with_statistics(network: nn.Module) -> nn.Module:
    """Give each BatchNorm the statistics and weights of a trained one."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 2.0)):
                if tensor is not None:
                    tensor.uniform_(low, high, generator=generator)
            for parameter, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.2, 0.2)):
                if parameter is not None:
                    parameter.data.uniform_(low, high, generator=generator)
    return network.eval()


def normalizations(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def assert_same_output(network: nn.Module, folded: nn.Module, example: Tensor) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(folded(example), network(example), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0"])
def test_pcb_keeps_its_features_and_loses_all_batch_norms(backbone):
    model = with_statistics(PCB(backbone, num_ids=3, parts=2, maps=4, alpha=0.3))
    example = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    folded = fold_batch_norms(model, example[:1])
    assert normalizations(model) > 20
    assert normalizations(folded) == 0
    with torch.inference_mode():
        torch.testing.assert_close(folded(example).features, model(example).features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["densenet121", "resnetv2_50", "resnetv2_50x1_bit", "mobilenetv3_small_050", "convnext_atto"])
def test_other_networks_keep_their_output(name):
    """Some add a convolution's output to other maps before they normalise it, or standardise the convolution's weights."""
    network = with_statistics(timm.create_model(name, num_classes=5))
    example = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert_same_output(network, fold_batch_norms(network, example), example)


class ReadTwice(nn.Module):
    """A convolution whose output is normalised and also added."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.normalization = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, H - 2, W - 2)."""
        y = self.convolution(x)
        return self.normalization(y) + y


class CalledTwice(ReadTwice):
    """A convolution that is shared by two places, one of them without normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, H - 4, W - 4)."""
        return self.normalization(self.convolution(self.convolution(x)))


@pytest.mark.parametrize("network_class", [ReadTwice, CalledTwice])
def test_a_convolution_with_a_second_reader_or_call_is_left_alone(network_class):
    network = with_statistics(network_class())
    example = torch.rand(2, 3, 8, 8)
    folded = fold_batch_norms(network, example)
    assert normalizations(folded) == 1
    assert_same_output(network, folded, example)


def test_batch_norm_without_running_statistics_stays():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    example = torch.rand(2, 3, 8, 8)
    assert_same_output(network, fold_batch_norms(network, example), example)


def test_the_network_itself_is_unchanged():
    network = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fold_batch_norms(network, torch.rand(2, 3, 8, 8))
    assert network.training
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
