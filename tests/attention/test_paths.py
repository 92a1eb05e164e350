"""The reference and the reordered path against a loop-by-hand oracle, each other, and what must not change."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from csametric import CompressedSelfAttention
from csametric.attention import eager, reference, reordered
from csametric.attention.reference import CSAWeights
from tests.attention import oracle


def with_weights(path):
    """A path as a function of the input and the fields of `CSAWeights`, so that a test can change one of them."""
    return lambda x_NCHW, *fields, **named: path.compressed_self_attention(x_NCHW, CSAWeights(*fields, **named))


PATHS = {path.__name__.rpartition(".")[2]: with_weights(path) for path in (reference, reordered, eager)}
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
both_paths = pytest.mark.parametrize("path", PATHS)
both_formats = pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)


def problem(n=2, channels=16, height=5, width=3, maps=8, groups=2, dtype=torch.float64, bias=False, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=1.0):
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype)

    per_group = channels // groups
    return {
        "x_NCHW": draw(n, channels, height, width),
        "logit_weight": draw(groups * maps, per_group, 1, 1, scale=per_group**-0.5),
        "value_weight": draw(channels, per_group, 1, 1, scale=per_group**-0.5),
        "alpha": torch.tensor(0.7, dtype=dtype),
        "logit_bias": draw(groups * maps) if bias else None,
        "value_bias": draw(channels) if bias else None,
        "groups": groups,
    }


def in_format(arguments, memory_format):
    return arguments | {"x_NCHW": arguments["x_NCHW"].to(memory_format=memory_format)}


@both_paths
@both_formats
def test_equals_the_loops_of_the_equations(path, memory_format):
    arguments = in_format(problem(n=2, channels=6, maps=4, groups=2), memory_format)
    out = PATHS[path](**arguments)
    for image in range(2):
        for group in range(2):
            rows = slice(3 * group, 3 * group + 3)
            expected = oracle.compressed_self_attention(
                arguments["x_NCHW"][image, rows],
                arguments["logit_weight"][4 * group : 4 * group + 4, :, 0, 0],
                arguments["value_weight"][rows, :, 0, 0],
                0.7,
            )
            torch.testing.assert_close(out[image, rows], expected, rtol=1e-10, atol=1e-10)


def test_answer_worked_by_hand():
    """One channel, two positions 0 and ln 3, one map, v = 1: B = (1/4, 3/4), W = 1, E = 3/4 ln 3 * 2, alpha = 1."""
    ln3 = torch.log(torch.tensor(3.0, dtype=torch.float64))
    x = torch.stack([torch.zeros_like(ln3), ln3]).reshape(1, 1, 1, 2)
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for path in PATHS.values():
        out = path(x, one, 2 * one, torch.tensor(1.0, dtype=torch.float64))
        torch.testing.assert_close(out, x + 1.5 * ln3)


@pytest.mark.parametrize("positions", [(1, 1), (3, 5), (16, 12), (37, 83), (96, 32)], ids=lambda p: str(p[0] * p[1]))
@pytest.mark.parametrize("maps", [8, 32, 64])
@both_formats
def test_reordered_equals_reference(positions, maps, memory_format):
    arguments = in_format(
        problem(n=2, channels=24, height=positions[0], width=positions[1], maps=maps, groups=3, bias=True), memory_format
    )
    for path in ("reordered", "eager"):
        torch.testing.assert_close(PATHS[path](**arguments), PATHS["reference"](**arguments), rtol=1e-9, atol=1e-9)


SLICES = {
    "channels": lambda x: x[:, 8:24],
    "rows": lambda x: x[:, 8:24, 1::2],
    "columns": lambda x: x[:, 8:24, :, ::2],
    "images": lambda x: x[::2, 8:24],
    "transposed": lambda x: x[:, 8:24].transpose(2, 3),
    "expanded": lambda x: x[:1, 8:24].expand(3, -1, -1, -1),
}


@both_paths
@both_formats
@pytest.mark.parametrize("cut", SLICES.values(), ids=SLICES)
def test_sliced_inputs(path, memory_format, cut):
    whole = torch.randn(4, 32, 6, 5, dtype=torch.float64).to(memory_format=memory_format)
    arguments = problem(channels=16) | {"x_NCHW": cut(whole)}
    solid = arguments | {"x_NCHW": cut(whole).contiguous()}
    torch.testing.assert_close(PATHS[path](**arguments), PATHS[path](**solid))


@both_paths
@both_formats
def test_memory_format_and_type_are_kept(path, memory_format):
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        arguments = in_format(problem(dtype=dtype), memory_format)
        out = PATHS[path](**arguments)
        assert out.dtype == dtype
        assert out.is_contiguous(memory_format=memory_format)


@both_paths
@both_formats
@pytest.mark.parametrize("groups", [1, 2])
def test_gradients(path, memory_format, groups):
    arguments = in_format(problem(n=2, channels=4, height=3, width=2, maps=3, groups=groups, bias=True), memory_format)
    names = [name for name, value in arguments.items() if isinstance(value, torch.Tensor)]
    tensors = [arguments[name].detach().requires_grad_() for name in names]

    def function(*values):
        return PATHS[path](**arguments | dict(zip(names, values, strict=True)))

    assert gradcheck(function, tensors)


@both_formats
def test_gradients_equal_the_reference(memory_format):
    arguments = in_format(problem(n=2, channels=32, height=9, width=7, maps=16, groups=4, bias=True), memory_format)
    names = [name for name, value in arguments.items() if isinstance(value, torch.Tensor)]
    weight = torch.randn_like(arguments["x_NCHW"])
    gradients = []
    for path in PATHS.values():
        tensors = {name: arguments[name].detach().clone(memory_format=torch.preserve_format).requires_grad_() for name in names}
        out = path(**arguments | tensors)
        gradients.append(torch.autograd.grad((out * weight).sum(), list(tensors.values())))
    for name, literal, *exact in zip(names, *gradients, strict=True):
        for each in exact:
            torch.testing.assert_close(each, literal, rtol=1e-9, atol=1e-9, msg=name)


@both_formats
def test_the_hand_written_backward_keeps_no_maps(memory_format):
    """What a training step keeps beyond the input and the parameters: U, C x D an image, and no value a position."""
    arguments = in_format(problem(n=2, channels=32, height=16, width=12, maps=16, groups=4), memory_format)
    leaves = {name: value.requires_grad_() for name, value in arguments.items() if isinstance(value, torch.Tensor)}
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        PATHS["eager"](**arguments)
    own = {tensor.untyped_storage().data_ptr() for tensor in leaves.values()}
    beyond = sum(tensor.numel() for tensor in kept if tensor.untyped_storage().data_ptr() not in own)
    assert beyond == 2 * 32 * 16


def test_a_gradient_in_any_layout():
    arguments = problem(n=2, channels=16, height=4, width=3, maps=8, groups=2)
    x = arguments["x_NCHW"].requires_grad_()
    weight = torch.randn(2, 16, 4, 3, dtype=torch.float64)
    (expected,) = torch.autograd.grad(PATHS["reference"](**arguments), x, weight)
    layouts = (weight.to(memory_format=torch.channels_last), weight.transpose(2, 3).contiguous().transpose(2, 3))
    for layout, channels_last in itertools.product(layouts, (False, True)):
        given = arguments | {"x_NCHW": x.to(memory_format=torch.channels_last) if channels_last else x}
        torch.testing.assert_close(torch.autograd.grad(PATHS["eager"](**given), x, layout)[0], expected)
    (ones,) = torch.autograd.grad(PATHS["reference"](**arguments).sum(), x)
    torch.testing.assert_close(torch.autograd.grad(PATHS["eager"](**arguments).sum(), x)[0], ones)


@both_paths
def test_gradients_can_be_differentiated(path):
    arguments = problem(n=2, channels=4, height=3, width=2, maps=2, groups=2, bias=True)
    tensors = {name: value.requires_grad_() for name, value in arguments.items() if isinstance(value, torch.Tensor)}

    def forward(*values):
        return PATHS[path](**(arguments | dict(zip(tensors, values, strict=True))))

    assert gradgradcheck(forward, tuple(tensors.values()))


def test_backward_under_autocast_stays_exact():
    arguments = {
        name: value.float() if isinstance(value, torch.Tensor) else value
        for name, value in problem(channels=16, maps=8).items()
    }
    x = arguments["x_NCHW"].requires_grad_()
    loss = PATHS["eager"](**arguments).square().sum()
    (expected,) = torch.autograd.grad(loss, x, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(torch.autograd.grad(loss, x)[0], expected)


@settings(max_examples=40, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4]),
    per_group=st.integers(1, 6),
    maps=st.integers(1, 9),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_permuting_positions_permutes_the_output(groups, per_group, maps, height, width, seed):
    arguments = problem(1, groups * per_group, height, width, maps, groups, seed=seed)
    order = torch.randperm(height * width, generator=torch.Generator().manual_seed(seed))

    def permuted(x):
        return x.flatten(2)[..., order].reshape(x.shape)

    for path in PATHS.values():
        out = path(**arguments | {"x_NCHW": permuted(arguments["x_NCHW"])})
        torch.testing.assert_close(out, permuted(path(**arguments)))


@both_paths
@both_formats
def test_groups_equal_separate_layers(path, memory_format):
    arguments = in_format(problem(channels=12, maps=5, groups=3, bias=True), memory_format)
    out = PATHS[path](**arguments)
    for group in range(3):
        rows, logits = slice(4 * group, 4 * group + 4), slice(5 * group, 5 * group + 5)
        alone = {
            "x_NCHW": arguments["x_NCHW"][:, rows],
            "logit_weight": arguments["logit_weight"][logits],
            "value_weight": arguments["value_weight"][rows],
            "alpha": arguments["alpha"],
            "logit_bias": arguments["logit_bias"][logits],
            "value_bias": arguments["value_bias"][rows],
        }
        torch.testing.assert_close(out[:, rows], PATHS[path](**alone))


@both_paths
@both_formats
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_logits_of_ten_thousand(path, memory_format, dtype):
    arguments = in_format(problem(dtype=dtype), memory_format)
    arguments["logit_weight"] = arguments["logit_weight"] * 1e4
    out = PATHS[path](**arguments)
    assert out.isfinite().all()
    assert out.abs().max() < 100


@both_paths
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_error(path, dtype):
    """No worse than twice (gradients: three times) the plain form with softmaxes in the low precision."""
    exact = problem(n=2, channels=64, height=24, width=8, maps=32, groups=2, dtype=torch.float32)
    low = {name: value.to(dtype) if isinstance(value, torch.Tensor) else value for name, value in exact.items()}
    exact = {name: value.float() if isinstance(value, torch.Tensor) else value for name, value in low.items()}

    def plain(x_NCHW, logit_weight, value_weight, alpha, groups, **_):
        logits = torch.nn.functional.conv2d(x_NCHW, logit_weight, groups=groups).unflatten(1, (groups, -1)).flatten(3)
        values = torch.nn.functional.conv2d(x_NCHW, value_weight, groups=groups).unflatten(1, (groups, -1)).flatten(3)
        attended = (values @ logits.softmax(-1).transpose(-1, -2)) @ logits.softmax(2)
        return x_NCHW + alpha * attended.reshape(x_NCHW.shape)

    def outputs_and_gradients(function, arguments):
        names = ("x_NCHW", "logit_weight", "value_weight", "alpha")
        tensors = {name: arguments[name].detach().clone().requires_grad_() for name in names}
        out = function(**arguments | tensors)
        gradients = torch.autograd.grad(out.float().square().sum(), list(tensors.values()))
        return [out, *gradients]

    truth = outputs_and_gradients(PATHS["reference"], exact)
    ours, theirs = outputs_and_gradients(PATHS[path], low), outputs_and_gradients(plain, low)
    for index, (want, got, bar) in enumerate(zip(truth, ours, theirs, strict=True)):
        allowed = (2 if index == 0 else 3) * (bar.float() - want).norm() + 1e-3 * want.norm()
        assert (got.float() - want).norm() <= allowed


@both_paths
@both_formats
def test_thirty_runs_are_bitwise_equal(path, memory_format):
    arguments = in_format(problem(n=2, channels=64, height=16, width=12, maps=32, dtype=torch.float32), memory_format)
    first = PATHS[path](**arguments)
    assert all(torch.equal(PATHS[path](**arguments), first) for _ in range(29))


@pytest.fixture
def uninitialised_memory_is_nan():
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@both_paths
@both_formats
def test_uninitialised_memory_never_shows(path, memory_format, uninitialised_memory_is_nan):
    arguments = in_format(problem(dtype=torch.float32), memory_format)
    assert PATHS[path](**arguments).isfinite().all()


def test_attention_sums_to_one_and_reconstructs_the_dense_map():
    layer = CompressedSelfAttention(6, maps=4, groups=2, bias=True, alpha=0.7).double()
    x = torch.randn(2, 6, 4, 3, dtype=torch.float64)
    maps = layer.attention(x)
    assert maps.base.shape == maps.weights.shape == (2, 2, 4, 4, 3)
    torch.testing.assert_close(maps.base.sum((-1, -2)), torch.ones(2, 2, 4, dtype=torch.float64))
    torch.testing.assert_close(maps.weights.sum(2), torch.ones(2, 2, 4, 3, dtype=torch.float64))
    dense = torch.stack([torch.stack([maps.at(y, x_) for x_ in range(3)], -1) for y in range(4)], -2)
    torch.testing.assert_close(dense.sum((2, 3)), torch.ones(2, 2, 4, 3, dtype=torch.float64))
    values = layer.value(x).unflatten(1, (2, 3))
    attended = torch.einsum("ngjkyx,ngcjk->ngcyx", dense, values).flatten(1, 2)
    torch.testing.assert_close(x + 0.7 * attended, layer(x))


def test_maps_at_equals_the_loop_oracle():
    layer = CompressedSelfAttention(3, maps=4, groups=1).double()
    x = torch.randn(1, 3, 2, 3, dtype=torch.float64)
    row = layer.attention(x).at(y=1, x=2).detach()
    expected = oracle.attention_map(x[0].flatten(1), layer.logits.weight[:, :, 0, 0].detach(), 1 * 3 + 2)
    torch.testing.assert_close(row.flatten(), torch.tensor(expected, dtype=torch.float64))


def test_maps_at_refuses_a_position_outside():
    maps = CompressedSelfAttention(4).attention(torch.randn(1, 4, 2, 3))
    for y, x in ((2, 0), (0, 3), (-1, 0)):
        with pytest.raises(IndexError, match="outside the 2 x 3 map"):
            maps.at(y, x)
