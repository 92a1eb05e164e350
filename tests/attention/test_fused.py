"""The fused kernels against the reference: on a GPU where there is one, by Triton's interpreter on a CPU where not."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from csametric import CompressedSelfAttention
from csametric.attention import dispatch, reference, reordered
from csametric.attention.reference import CSAWeights
from csametric.errors import UserError
from tests.attention.test_paths import problem

fused = pytest.importorskip("csametric.attention.fused")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LOW = (torch.float16, torch.bfloat16)
only_on_a_gpu = pytest.mark.skipif(DEVICE.type == "cpu", reason="no GPU on this machine")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def formats(x: Tensor) -> dict[str, Tensor]:
    """The same values in every layout that a layer may be given."""
    spread = x.new_zeros(x.shape[0], 3 * x.shape[1], 2 * x.shape[2], 2 * x.shape[3])
    spread[:, ::3, ::2, 1::2] = x
    padded = x.new_zeros(x.shape[0], x.shape[1] + 5, *x.shape[2:]).to(memory_format=torch.channels_last)
    padded[:, 5:] = x
    return {
        "NCHW": x,
        "channels_last": x.to(memory_format=torch.channels_last),
        "every third channel, every second row and column": spread[:, ::3, ::2, 1::2],
        "the last channels of channels_last": padded[:, 5:],
    }


def on_device(arguments, dtype=None):
    return {
        name: value.to(DEVICE, dtype or value.dtype) if isinstance(value, Tensor) else value
        for name, value in arguments.items()
    }


def results(path, arguments, gradient) -> dict[str, Tensor]:
    """The output, and the gradients of X and of each parameter, for a gradient of the output."""
    leaves = {name: value.detach().requires_grad_() for name, value in arguments.items() if isinstance(value, Tensor)}
    x_NCHW, *fields = (arguments | leaves).values()
    out = path(x_NCHW, CSAWeights(*fields))
    gradients = torch.autograd.grad(out, list(leaves.values()), gradient.to(out.dtype))
    return {"output": out, **dict(zip(leaves, gradients, strict=True))}


def distance(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30)).item()


SIZES = [(8, (1, 1), 8, 1), (48, (5, 3), 8, 3), (20, (16, 12), 64, 1), (80, (7, 11), 32, 2), (16, (3, 5), 128, 1)]


@pytest.mark.parametrize(("channels", "positions", "maps", "groups"), SIZES, ids=str)
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "biases"])
def test_output_and_gradients_equal_the_reference(channels, positions, maps, groups, bias):
    size = {"channels": channels, "height": positions[0], "width": positions[1], "maps": maps, "groups": groups}
    arguments = on_device(problem(**size, bias=bias))
    gradient = torch.randn_like(arguments["x_NCHW"])
    expected = results(reference.compressed_self_attention, arguments, gradient)
    single = on_device(arguments, torch.float32)
    for name, x in formats(single["x_NCHW"]).items():
        found = results(fused.compressed_self_attention, single | {"x_NCHW": x}, gradient)
        for what in expected:
            near_zero = expected[what].norm() < 1e-9
            assert near_zero or distance(found[what], expected[what]) < 3e-6, (name, what)


@pytest.mark.skipif(DEVICE.type == "cpu", reason="no GPU on this machine; the interpreter takes minutes at these sizes")
@pytest.mark.parametrize(("positions", "maps"), list(product([(1, 1), (3, 5), (16, 12), (37, 83), (96, 32)], [8, 32, 64])))
def test_many_positions(positions, maps):
    arguments = on_device(problem(channels=256, height=positions[0], width=positions[1], maps=maps, groups=2, bias=True))
    gradient = torch.randn_like(arguments["x_NCHW"])
    expected = results(reference.compressed_self_attention, arguments, gradient)
    found = results(fused.compressed_self_attention, on_device(arguments, torch.float32), gradient)
    for what in expected:  # at one position every map has the same mean, so the logits get no gradient
        near_zero = expected[what].norm() < 1e-9 and found[what].norm() < 1e-4
        assert near_zero or distance(found[what], expected[what]) < 1e-5, what


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_low_precision_is_as_exact_as_plain_operators(dtype):
    """Error at most twice that of the reordered operators in the same type, three times for gradients."""
    if DEVICE.type == "cpu" and dtype == torch.bfloat16:
        pytest.skip("no GPU on this machine; Triton's interpreter cuts bf16 off where a GPU rounds")
    arguments = on_device(problem(channels=64, height=9, width=7, maps=16, groups=2), dtype)
    exact = on_device(arguments, torch.float64)
    gradient = torch.randn_like(arguments["x_NCHW"])
    expected = results(reference.compressed_self_attention, exact, gradient)
    plain = results(reordered.compressed_self_attention, arguments, gradient)
    found = results(fused.compressed_self_attention, arguments, gradient)
    for what in expected:
        allowed = (2.0 if what == "output" else 3.0) * distance(plain[what], expected[what])
        if expected[what].numel() == 1:  # one number may come out exact by luck
            allowed = max(allowed, torch.finfo(dtype).eps / 2)
        assert distance(found[what], expected[what]) <= allowed, what


def test_logit_gradients_of_features_far_from_zero_are_as_exact_as_plain_operators():
    """Their gradient is a small difference of large sums, so both must be taken from the same rounded dU."""
    errors = {"fused": 0.0, "plain": 0.0}
    for seed in (0, 1):
        torch.manual_seed(seed)
        arguments = on_device(problem(channels=64, height=16, width=12, maps=16, groups=1), torch.float16)
        arguments["x_NCHW"] = (arguments["x_NCHW"] + 3).relu()
        gradient = torch.randn_like(arguments["x_NCHW"])
        expected = results(reference.compressed_self_attention, on_device(arguments, torch.float64), gradient)
        for name, path in (("fused", fused), ("plain", reordered)):
            found = results(path.compressed_self_attention, arguments, gradient)
            errors[name] += distance(found["logit_weight"], expected["logit_weight"])
    assert errors["fused"] <= errors["plain"]


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_logits_of_ten_thousand(scale):
    arguments = on_device(problem(channels=16, height=5, width=13, maps=8, groups=1), torch.float32)
    arguments["logit_weight"] = arguments["logit_weight"] * scale
    gradient = torch.randn_like(arguments["x_NCHW"])
    expected = results(reference.compressed_self_attention, on_device(arguments, torch.float64), gradient)
    found = results(fused.compressed_self_attention, arguments, gradient)
    assert distance(found["output"], expected["output"]) < 1e-5
    assert all(value.isfinite().all() for value in found.values())


def test_every_value_is_written(monkeypatch):
    """Memory not yet written is NaN under deterministic algorithms, so a value left out would show."""
    arguments = on_device(problem(channels=48, height=5, width=13, maps=8, groups=3, bias=True), torch.float32)
    gradient = torch.randn_like(arguments["x_NCHW"])
    torch.use_deterministic_algorithms(True, warn_only=True)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    try:
        found = results(fused.compressed_self_attention, arguments, gradient)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(value.isfinite().all() for value in found.values())


def test_runs_agree_to_the_bit():
    arguments = on_device(problem(channels=32, height=16, width=12, maps=16, groups=2), torch.float32)
    gradient = torch.randn_like(arguments["x_NCHW"])
    first = results(fused.compressed_self_attention, arguments, gradient)
    for _ in range(29 if DEVICE.type == "cuda" else 2):
        again = results(fused.compressed_self_attention, arguments, gradient)
        assert all(torch.equal(again[what], first[what]) for what in first)


@pytest.mark.parametrize("splits", [1, 3, 100])
def test_the_number_of_splits_does_not_matter(splits, monkeypatch):
    monkeypatch.setattr(fused, "_wanted_programs", lambda device, programs: splits * programs)
    arguments = on_device(problem(channels=16, height=29, width=11, maps=8, groups=1))
    gradient = torch.randn_like(arguments["x_NCHW"])
    expected = results(reference.compressed_self_attention, arguments, gradient)
    found = results(fused.compressed_self_attention, on_device(arguments, torch.float32), gradient)
    assert all(distance(found[what], expected[what]) < 3e-6 for what in expected)


@pytest.mark.parametrize(("accumulated", "blocks"), [(1024, 3), (2048, 2)])
def test_channels_in_several_blocks(accumulated, blocks, monkeypatch):
    for name in ("ACCUMULATED", "ACCUMULATED_BESIDE_GRADIENTS"):
        monkeypatch.setattr(fused, name, accumulated)
    sizes = fused._Sizes(images=2, groups=2, channels=40, maps=8, positions=35)
    assert -(-40 // fused._blocks(sizes, torch.zeros(()), accumulated).channels) == blocks
    arguments = on_device(problem(channels=80, height=5, width=7, maps=8, groups=2, bias=True))
    gradient = torch.randn_like(arguments["x_NCHW"])
    expected = results(reference.compressed_self_attention, arguments, gradient)
    found = results(fused.compressed_self_attention, on_device(arguments, torch.float32), gradient)
    assert all(distance(found[what], expected[what]) < 3e-6 for what in expected)


def test_an_empty_batch_and_biases_that_are_not_contiguous():
    arguments = on_device(problem(channels=16, maps=8, groups=2, bias=True), torch.float32)
    gradient = torch.randn_like(arguments["x_NCHW"])
    expected = results(reference.compressed_self_attention, on_device(arguments, torch.float64), gradient)
    for name in ("logit_bias", "value_bias"):
        arguments[name] = torch.stack([arguments[name], arguments[name] + 1], 1)[:, 0]
    found = results(fused.compressed_self_attention, arguments, gradient)
    assert all(distance(found[what], expected[what]) < 3e-6 for what in expected)
    nothing = arguments | {"x_NCHW": arguments["x_NCHW"][:0]}
    assert dispatch.choose_path("reordered", nothing["x_NCHW"], maps=8).form == "reordered"
    for path in (reference, reordered, fused):
        gradients = results(path.compressed_self_attention, nothing, gradient[:0])
        assert gradients["output"].shape[0] == 0
        assert not any(value.any() for value in gradients.values())


@pytest.mark.parametrize("switch", ["ieee", "tf32"])
def test_the_switch_of_tf32_is_read_in_its_new_form(switch):
    before = torch.backends.cuda.matmul.fp32_precision
    try:
        torch.backends.cuda.matmul.fp32_precision = switch
        sizes = fused._Sizes(images=1, groups=1, channels=16, maps=8, positions=9)
        x = torch.zeros(1, 16, 3, 3)
        assert fused._options(x, fused._blocks(sizes, x, fused.ACCUMULATED), None)["PRECISION"] == switch
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def test_a_gradient_without_strides():
    """sum().backward() hands over one number, spread by strides of 0."""
    arguments = on_device(problem(channels=16, maps=8, groups=1), torch.float32)
    one = torch.ones((), device=DEVICE).expand(arguments["x_NCHW"].shape)
    expected = results(reference.compressed_self_attention, on_device(arguments, torch.float64), one)
    found = results(fused.compressed_self_attention, arguments, one)
    assert all(distance(found[what], expected[what]) < 3e-6 for what in expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_registration_holds(memory_format):
    """Schema, fake strides and autograd registration, checked by PyTorch itself."""
    arguments = on_device(problem(channels=16, maps=8, groups=2, bias=True), torch.float32)
    x = arguments.pop("x_NCHW").to(memory_format=memory_format).requires_grad_()
    groups = arguments.pop("groups")
    parameters = [value.requires_grad_() for value in arguments.values()]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(fused._forward, (x, *parameters, groups), test_utils=checks)
    kept = [each.detach() for each in fused._forward(x, *parameters, groups)]
    weights = [parameter.detach() for parameter in parameters]
    backward = (torch.randn_like(x), x.detach(), *kept[1:], *weights, groups)
    torch.library.opcheck(fused._backward, backward, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_layer_runs_compiled_and_tells_its_path(memory_format, monkeypatch):
    ran = []
    monkeypatch.setitem(
        dispatch.FORMS, "fused", lambda *a, path=dispatch.FORMS["fused"]: ran.append("fused") or path(*a)
    )  # the spy must see the kernels' path, not the name that is told
    layer = CompressedSelfAttention(16, maps=8, alpha=0.5, backend="fused").to(DEVICE)
    plain = CompressedSelfAttention(16, maps=8, backend="reference").to(DEVICE)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 16, 5, 4, device=DEVICE).to(memory_format=memory_format).requires_grad_()
    out = layer(x)
    assert (ran, layer.last_path) == (["fused"], "fused")
    torch.testing.assert_close(out, plain(x), rtol=1e-5, atol=1e-5)
    assert out.stride() == x.stride()
    monkeypatch.undo()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), out)
    (expected,) = torch.autograd.grad(plain(x).square().sum(), x)
    torch.testing.assert_close(torch.autograd.grad(compiled(x).square().sum(), x)[0], expected, rtol=1e-4, atol=1e-5)


def test_the_question_whether_a_device_will_do_compiles(monkeypatch):
    """Dynamo would warn of the cache, which is an error here, and then trace Triton's search for a driver."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))

    @torch.compile(fullgraph=True, backend="eager")
    def letters(x: Tensor) -> Tensor:
        return x + len(fused._obstacle_on_device(torch.device("cuda", 0)))

    assert letters(torch.zeros(())) == len("the fused kernels need compute capability 8.0 or later")


def test_autocast_keeps_the_type():
    layer = CompressedSelfAttention(16, maps=8, alpha=0.5, backend="fused").to(DEVICE)
    x = torch.randn(2, 16, 5, 4, device=DEVICE)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        out = layer(x)
    assert torch.equal(out, layer(x))


def test_auto_leaves_the_interpreter_alone():
    x = torch.randn(1, 8, 3, 3)
    layer = CompressedSelfAttention(8)
    layer(x)
    assert layer.last_path == "reordered"
    assert "CPU" in layer.last_reason or "CUDA" in layer.last_reason


class _Answer(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + int("exported" in dispatch.why_not_fused(x, maps=8))


def test_an_exported_program_has_no_kernels_and_a_compiled_one_has():
    x, layer = torch.zeros(1, 8, 3, 3, device=DEVICE), _Answer()
    for strict in (False, True):
        assert (torch.export.export(layer, (x,), strict=strict).module()(x) == 1).all()
    assert (torch.compile(layer, fullgraph=True, backend="eager")(x) == 0).all()


def test_what_cannot_run_says_why():
    layer = CompressedSelfAttention(8, maps=200, backend="fused").to(DEVICE)
    with pytest.raises(UserError, match="up to 128 maps per group, the layer has 200; use backend='auto'"):
        layer(torch.randn(1, 8, 3, 3, device=DEVICE))
    with pytest.raises(UserError, match="fp32, fp16 and bf16"):
        CompressedSelfAttention(8, backend="fused").double().to(DEVICE)(
            torch.randn(1, 8, 3, 3, device=DEVICE, dtype=torch.float64)
        )


def test_without_a_gpu_the_name_is_refused():
    words = "from csametric import CompressedSelfAttention as A; A(8, backend='fused')"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {
        "CUDA_VISIBLE_DEVICES": ""
    }
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, env=environment, timeout=100)
    assert "cannot run: the fused kernels need a CUDA device, and none was found; use backend='auto'" in done.stderr


@only_on_a_gpu
def test_auto_takes_the_kernels_on_a_gpu():
    layer = CompressedSelfAttention(64).cuda()
    x = torch.randn(2, 64, 24, 8, device="cuda")
    layer(x.bfloat16())
    assert layer.last_path == "fused", layer.last_reason
    layer(x)
    assert (layer.last_path, layer.last_form) == ("reordered", "eager")
    assert "slow in fp32 without TF32" in layer.last_reason


@only_on_a_gpu
@pytest.mark.parametrize("training", [False, True])
def test_replays_in_a_cuda_graph(training):
    layer = CompressedSelfAttention(64, alpha=0.5).cuda().bfloat16()
    x, other = (torch.randn(2, 64, 24, 8, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    x.requires_grad_(training)

    def run(inputs: Tensor) -> Tensor:
        with torch.set_grad_enabled(training):
            out = layer(inputs)
            return torch.autograd.grad(out.float().square().sum(), inputs)[0] if training else out

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        run(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run(x)
    assert layer.last_path == "fused"
    with torch.no_grad():
        x.copy_(other)
    graph.replay()
    assert torch.equal(out, run(other.requires_grad_(training)))


@only_on_a_gpu
def test_runs_compiled_by_inductor_in_any_batch():
    layer = CompressedSelfAttention(64, alpha=0.5, backend="fused").cuda()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    for images in (2, 5):
        x = torch.randn(images, 64, 24, 8, device="cuda").to(memory_format=torch.channels_last)
        torch.testing.assert_close(compiled(x), layer(x))


def test_kernels_compile_for_gpus_and_fit_their_shared_memory():
    """99 KiB is what a block may have on the smallest of them; the same limit holds on all."""
    from tests.attention.compile_for_gpus import CASES  # imports triton

    done = subprocess.run(
        [sys.executable, "-W", "error:TRITON", "-m", "tests.attention.compile_for_gpus"],
        env=os.environ | {"TRITON_INTERPRET": "0"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    compiled = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(compiled) == 6 * len(CASES) * 2  # `join` runs in the forward and in the backward
    too_large = [row for row in compiled if row["shared"] > 99 * 1024]
    assert not too_large
