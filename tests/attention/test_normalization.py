"""A normalised layer is the plain layer on normalised features, whatever their scale."""

import pytest
import torch

from csametric import CompressedSelfAttention, SelfAttention
from csametric.attention.convolution import weight_and_bias
from csametric.attention.normalization import fold_norm
from csametric.models.pcb import PCB

LAYERS = {
    "csa": lambda **options: CompressedSelfAttention(16, maps=8, alpha=0.7, **options),
    "csa with biases": lambda **options: CompressedSelfAttention(16, maps=8, alpha=0.7, bias=True, **options),
    "literal csa": lambda **options: CompressedSelfAttention(16, maps=8, alpha=0.7, backend="reference", **options),
    "sa": lambda **options: SelfAttention(16, alpha=0.7, **options),
}
each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def observed(make, x):
    """The layer after it has seen the batch often enough, in evaluation, and the same without normalisation."""
    layer = make(norm=True).double()
    for _ in range(400):
        layer.norm(x)
    plain = make().double()
    plain.load_state_dict({name: tensor for name, tensor in layer.state_dict().items() if not name.startswith("norm.")})
    return layer.eval(), plain


@each_layer
def test_equals_the_layer_on_normalised_features(make):
    x = 8 * torch.randn(3, 16, 6, 5, dtype=torch.float64) + 3
    layer, plain = observed(make, x)
    z = layer.norm(x)
    deviation = (layer.norm.running_var + layer.norm.eps).sqrt().view(1, -1, 1, 1)
    torch.testing.assert_close(layer(x) - x, deviation * (plain(z) - z))
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(16, dtype=torch.float64), rtol=0, atol=1e-6)


@each_layer
def test_the_scale_of_the_input_does_not_matter(make):
    x = torch.randn(3, 16, 6, 5, dtype=torch.float64)
    small, plain = observed(make, x)
    large = make(norm=True).double()
    large.load_state_dict(plain.state_dict(), strict=False)
    for _ in range(400):
        large.norm(1000 * x)
    torch.testing.assert_close(large.eval()(1000 * x) / 1000, small(x), rtol=1e-4, atol=1e-4)


@each_layer
def test_training_moves_the_statistics_and_evaluation_does_not(make):
    layer = make(norm=True)
    x = torch.randn(3, 16, 6, 5) + 5
    layer.eval()(x)
    assert torch.equal(layer.norm.running_mean, torch.zeros(16))
    layer.train()(x).sum().backward()
    torch.testing.assert_close(layer.norm.running_mean, 0.1 * x.mean((0, 2, 3)))
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_the_maps_are_those_the_layer_attends_with():
    x = 8 * torch.randn(3, 16, 6, 5, dtype=torch.float64)
    layer, plain = observed(LAYERS["csa"], x)
    torch.testing.assert_close(layer.attention(x).base, plain.attention(layer.norm(x)).base)


def test_without_normalisation_the_weights_are_the_convolutions():
    layer = LAYERS["csa with biases"]()
    assert fold_norm(*weight_and_bias(layer.logits, 16, 2), 2, None) == (layer.logits.weight, layer.logits.bias)
    assert not any(name.startswith("norm") for name in layer.state_dict())


def test_compiles_in_training():
    layer = LAYERS["csa"](norm=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 16, 4, 3)
    for _ in range(2):
        compiled(x).sum().backward()
    assert layer.norm.num_batches_tracked == 2


def test_pcb_passes_it_on():
    model = PCB("resnet18", num_ids=4, attention="csa", attention_norm=True)
    assert sum(isinstance(module, CompressedSelfAttention) and module.norm is not None for module in model.modules()) == 3
