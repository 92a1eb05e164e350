"""The layers in the hands of other tools: what works gives the exact result, what cannot work is refused with a sentence."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, jacfwd, jacrev, jvp, vmap
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from csametric import CompressedSelfAttention, SelfAttention
from csametric.errors import UserError
from tests.processes import run_group

LAYERS = {
    "csa": lambda **options: CompressedSelfAttention(8, maps=4, alpha=0.5, **options),
    "csa with biases": lambda **options: CompressedSelfAttention(8, maps=4, alpha=0.5, bias=True, **options),
    "literal csa": lambda **options: CompressedSelfAttention(8, maps=4, alpha=0.5, backend="reference", **options),
    "sa": lambda **options: SelfAttention(8, reduction=4, alpha=0.5, **options),
}
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def images(n=3, shift=0.0, seed=0):
    return 3 * torch.randn(n, 8, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + shift


def gradients(loss, layer):
    values = torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True)
    return dict(zip(dict(layer.named_parameters()), values, strict=True))


def assert_same(got, expected):
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, msg=lambda message, name=name: f"{name}: {message}")


def with_fixed_statistics(layer, mean, variance):
    """The layer in evaluation with given statistics: what a training forward with these computes."""
    fixed = copy.deepcopy(layer).eval()
    fixed.norm.running_mean.copy_(mean)
    fixed.norm.running_var.copy_(variance)
    return fixed


# --- gradients with running statistics ---


@each_layer
def test_two_forwards_before_a_backward_have_exact_gradients(make):
    """The second forward moves the running mean, which must not change what the first one is differentiated with."""
    layer = make(norm=True).double()
    layer.norm.running_mean.copy_(torch.randn(8))
    a, b = images(shift=2.0), images(shift=-2.0, seed=1)
    before = with_fixed_statistics(layer, layer.norm.running_mean, layer.norm.running_var)
    between = copy.deepcopy(layer.norm)
    between(a)
    after = with_fixed_statistics(layer, between.running_mean, between.running_var)

    got = gradients((layer(a) - layer(b)).square().sum(), layer)
    loss = (before(a) - after(b)).square().sum()
    first, second = (gradients(loss, part) for part in (before, after))
    assert_same(got, {name: first[name] + second[name] for name in first if name in second})


@each_layer
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_changes_nothing(make, use_reentrant):
    plain = make(norm=True).double()
    repeated = copy.deepcopy(plain)
    a, b = images(shift=2.0).requires_grad_(), images(shift=-2.0, seed=1).requires_grad_()
    expected = gradients((plain(a) - plain(b)).square().sum(), plain)
    out_a, out_b = (checkpoint(repeated, x, use_reentrant=use_reentrant) for x in (a, b))
    (out_a - out_b).square().sum().backward()
    assert_same({name: parameter.grad for name, parameter in repeated.named_parameters()}, expected)
    torch.testing.assert_close(repeated.norm.running_mean, plain.norm.running_mean)
    assert repeated.norm.num_batches_tracked == 2


def test_a_checkpointed_network_repeats_the_layer_behind_other_layers():
    network = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), LAYERS["csa"](norm=True)).double()
    repeated = copy.deepcopy(network)
    a, b = images(shift=2.0), images(shift=-2.0, seed=1)
    expected = gradients((network(a) * network(b)).sum(), network)
    outputs = [checkpoint(repeated, x, use_reentrant=False) for x in (a, b)]
    assert_same(gradients((outputs[0] * outputs[1]).sum(), repeated), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("ratio", [0, 1, 10, 30])
@pytest.mark.parametrize("kind", ["csa", "sa"])
def test_a_large_mean_costs_no_digits(kind, ratio, dtype):
    """Error of what is added, against fp64 on the same rounded input; with a large alpha the output's rounding is small."""
    torch.manual_seed(0)
    if kind == "csa":
        layer = CompressedSelfAttention(64, maps=16, alpha=300.0, norm=True).eval()
    else:
        layer = SelfAttention(64, alpha=300.0, norm=True).eval()
    x = torch.randn(4, 64, 12, 8) + ratio * torch.randn(1, 64, 1, 1).sign()
    layer.norm.running_mean.copy_(x.mean((0, 2, 3)))
    layer.norm.running_var.copy_(x.var((0, 2, 3)))
    x = x.to(dtype)
    exact = copy.deepcopy(layer).double()
    added = exact(x.double()) - x.double()
    error = layer(x).double() - x.double() - added
    assert error.norm() < 0.03 * added.norm()


def test_a_normalised_layer_starts_as_the_identity_in_low_precision():
    layer = CompressedSelfAttention(8, maps=4, norm=True)
    layer.norm.running_mean.fill_(1.234567)
    x = torch.randn(2, 8, 4, 3, dtype=torch.bfloat16) * 5
    assert torch.equal(layer(x), x)


# --- weights that are not the convolution's own ---


class LowRank(nn.Module):
    """A wrapper as LoRA makes it: it shows the weight of the convolution inside but computes more."""

    def __init__(self, base):
        super().__init__()
        self.base_layer = base
        outputs, inputs = base.weight.shape[0], base.weight.shape[1] * base.groups
        self.down = nn.Conv2d(inputs, 2 * base.groups, 1, groups=base.groups, bias=False)
        self.up = nn.Conv2d(2 * base.groups, outputs, 1, groups=base.groups, bias=False)

    @property
    def weight(self):
        return self.base_layer.weight

    @property
    def bias(self):
        return self.base_layer.bias

    def forward(self, x):
        return self.base_layer(x) + self.up(self.down(x))


def convolution_names(layer):
    return ("query", "key", "value") if isinstance(layer, SelfAttention) else ("logits", "value")


@each_layer
def test_low_rank_adapters_take_part(make):
    layer = make().double()
    merged = copy.deepcopy(layer)
    for name in convolution_names(layer):
        adapter = LowRank(getattr(layer, name)).double()
        setattr(layer, name, adapter)
        groups = adapter.base_layer.groups
        down, up = (part.weight.unflatten(0, (groups, -1)).flatten(2) for part in (adapter.down, adapter.up))
        getattr(merged, name).weight.data += (up @ down).flatten(0, 1)[:, :, None, None]
    x = images()
    torch.testing.assert_close(layer(x), merged(x))
    layer(x).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for name, parameter in layer.named_parameters() if "up" in name or "down" in name)


def test_adapters_that_mix_groups_are_refused():
    """peft's LoRA of a grouped convolution has no groups; one column per channel and group could not tell them apart."""
    layer = CompressedSelfAttention(8, maps=4, groups=2)
    adapter = LowRank(layer.value)
    adapter.down = nn.Conv2d(8, 2, 1, bias=False)
    layer.value = adapter
    with pytest.raises(UserError, match=r"LowRank mixes the 2 groups of channels .*groups=1, or use an adapter with groups=2"):
        layer(torch.randn(2, 8, 4, 3))


WRAPPERS = {
    "spectral_norm": nn.utils.spectral_norm,
    "weight_norm": nn.utils.weight_norm,
    "pruning": lambda convolution: prune.l1_unstructured(convolution, "weight", 0.5),
    "parametrized spectral_norm": parametrizations.spectral_norm,
    "parametrized weight_norm": parametrizations.weight_norm,
}


@each_layer
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_reparametrised_weights_train(make, wrap):
    layer = make().double()
    for name in convolution_names(layer):
        wrap(getattr(layer, name))
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    before = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        layer(images()).square().mean().backward()
        optimizer.step()
    assert all((parameter != before[name]).any() for name, parameter in layer.named_parameters() if "weight" in name)
    # the layer is what its convolutions compute
    plain = make().double().eval()
    layer.eval()
    for name in convolution_names(layer):
        wrapped, bare = getattr(layer, name), getattr(plain, name)
        units = torch.eye(bare.weight.shape[1], dtype=torch.float64).repeat(bare.groups, 1)[None, :, :, None]
        columns = wrapped(units)[0, :, :, 0]
        offset = 0 if bare.bias is None else wrapped.bias[:, None]
        bare.weight.data = (columns - offset)[:, :, None, None]
        if bare.bias is not None:
            bare.bias.data = wrapped.bias.data
    plain.alpha.data = layer.alpha.data
    torch.testing.assert_close(layer(images()), plain(images()))


# --- tracing ---


@each_layer
@pytest.mark.parametrize("norm", [False, True])
def test_torch_jit_trace_and_save(make, norm):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), make(norm=norm)).eval()
    x = torch.randn(2, 3, 8, 6)
    saved = io.BytesIO()
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(network, x), saved)
    saved.seek(0)
    torch.testing.assert_close(torch.jit.load(saved)(x), network(x))


@each_layer
def test_symbolic_tracing_keeps_the_layer_dynamic(make):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), make(norm=True), nn.ReLU())
    traced = torch.fx.symbolic_trace(network)
    for size in (8, 11):
        x = torch.randn(2, 3, size, 6)
        torch.testing.assert_close(traced.eval()(x), network.eval()(x))


def test_feature_extraction_by_torchvision():
    from torchvision.models import resnet18
    from torchvision.models.feature_extraction import create_feature_extractor

    from csametric import insert_after

    network = insert_after(resnet18(), {"layer1": lambda channels: CompressedSelfAttention(channels, maps=4, alpha=0.5)}).eval()
    x = torch.randn(1, 3, 64, 32)
    extracted = create_feature_extractor(network, {"layer2": "map"})(x)["map"]
    stem = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    torch.testing.assert_close(extracted, network.layer2(network.layer1(stem)))


@pytest.mark.filterwarnings("ignore:.*")
def test_the_older_onnx_exporter(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network = nn.Sequential(nn.Conv2d(3, 8, 3), LAYERS["csa"]()).eval()
    x = torch.randn(2, 3, 8, 6)
    torch.onnx.export(network, (x,), str(tmp_path / "n.onnx"), dynamo=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "n.onnx"))
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(out), network(x).detach(), rtol=1e-4, atol=1e-5)


# --- transforms ---


def reference_of(layer):
    if isinstance(layer, SelfAttention):
        return layer
    literal = copy.deepcopy(layer)
    literal.backend = "reference"
    return literal


@each_layer
def test_forward_mode(make):
    layer = make().double()
    literal, x, direction = reference_of(layer), images(), images(seed=1)
    step = 1e-6
    expected = (literal(x + step * direction) - literal(x - step * direction)) / (2 * step)
    out, tangent = jvp(layer, (x,), (direction,))
    torch.testing.assert_close(out, layer(x))
    torch.testing.assert_close(tangent, expected, rtol=1e-6, atol=1e-6)
    with forward_ad.dual_level():
        dual = layer(forward_ad.make_dual(x, direction))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, tangent)


@each_layer
def test_jacobians_agree(make):
    layer = make().double()
    x = images(n=1)
    torch.testing.assert_close(jacfwd(layer)(x), jacrev(layer)(x))


@each_layer
def test_gradients_per_sample(make):
    layer = make().double()
    x = images()

    def loss(parameters, image):
        return functional_call(layer, parameters, (image[None],)).square().sum()

    parameters = dict(layer.named_parameters())
    got = vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for index, image in enumerate(x):
        expected = gradients(layer(image[None]).square().sum(), layer)
        assert_same({name: gradient[index] for name, gradient in got.items()}, expected)


@pytest.mark.parametrize("transform", ["jvp", "vmap", "grad", "trace"])
def test_kernels_asked_for_by_name_refuse_what_they_cannot_do(transform):
    layer = CompressedSelfAttention(8, maps=4, alpha=0.5, backend="fused")
    x = torch.randn(2, 8, 4, 3)
    calls = {
        "jvp": lambda: jvp(layer, (x,), (x,)),
        "vmap": lambda: vmap(lambda image: layer(image[None])[0])(x),
        "grad": lambda: torch.func.grad(lambda x: layer(x).sum())(x),
        "trace": lambda: torch.jit.trace(layer, x),
    }
    with pytest.raises(UserError, match=r"backend='fused' cannot run: .*plain operators.*; use backend='auto'"):
        calls[transform]()


def test_the_path_that_a_transform_takes_is_told():
    layer = CompressedSelfAttention(8, maps=4)
    vmap(lambda image: layer(image[None])[0])(torch.randn(2, 8, 4, 3))
    assert (layer.last_path, layer.last_form) == ("reordered", "reordered")


def test_kernels_can_be_differentiated_twice():
    layer = CompressedSelfAttention(4, maps=2, groups=2, alpha=0.5, backend="fused")
    literal = reference_of(layer)
    x = torch.randn(1, 4, 3, 2, requires_grad=True)
    seconds = []
    for each in (layer, literal):
        (first,) = torch.autograd.grad(each(x).square().sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), [x, *each.parameters()]))
    for got, expected in zip(*seconds, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_sharded_by_fsdp2(tmp_path):
    run_group(2, "tests.attention.sharded", cwd=tmp_path)
