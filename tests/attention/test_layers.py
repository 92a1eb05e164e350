"""The modules: names, defaults, autocast, compile, which path ran, errors."""

import math

import pytest
import torch

from csametric import CompressedSelfAttention, SelfAttention
from csametric.attention import dispatch
from csametric.errors import UserError

FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
both_formats = pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)


def test_names_shapes_and_defaults():
    layer = CompressedSelfAttention(channels=256)
    assert (layer.maps, layer.groups, layer.backend) == (32, 2, "auto")
    shapes = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    assert shapes == {"alpha": (), "logits.weight": (64, 128, 1, 1), "value.weight": (256, 128, 1, 1)}
    assert isinstance(layer.alpha, torch.nn.Parameter)
    biased = CompressedSelfAttention(8, bias=True, learn_alpha=False, alpha=0.5)
    assert {"logits.bias", "value.bias"} <= set(biased.state_dict())
    assert "alpha" in dict(biased.named_buffers())


def test_alpha_zero_leaves_the_input_as_it_was():
    x = torch.randn(2, 16, 5, 4)
    for layer in (CompressedSelfAttention(16), SelfAttention(16)):
        assert torch.equal(layer(x), x)


@pytest.mark.parametrize("backend", ["auto", "reference", "reordered"])
def test_the_path_that_ran_is_told(backend, monkeypatch):
    ran = []
    for name, form in list(dispatch.FORMS.items()):
        monkeypatch.setitem(dispatch.FORMS, name, lambda *a, name=name, form=form: ran.append(name) or form(*a))
    layer = CompressedSelfAttention(8, backend=backend)
    assert layer.last_path == layer.last_reason == ""
    layer(torch.randn(1, 8, 3, 3))
    expected = "reordered" if backend == "auto" else backend
    assert ran == [layer.last_form]
    assert layer.last_path == expected
    assert layer.last_form == ("eager" if expected == "reordered" else expected)
    assert ("fused" in layer.last_reason) == (backend == "auto")


@both_formats
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_autocast_keeps_type_and_format(memory_format, dtype):
    x = torch.randn(2, 16, 5, 4).to(dtype).to(memory_format=memory_format)
    for layer in (CompressedSelfAttention(16, alpha=0.5), SelfAttention(16, alpha=0.5)):
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(x)
        assert out.dtype == dtype
        assert out.is_contiguous(memory_format=memory_format)
        out.float().sum().backward()
        assert all(p.grad.dtype == torch.float32 for p in layer.parameters())


def test_autocast_leaves_fp32_exact():
    layer, x = CompressedSelfAttention(16, alpha=0.5), torch.randn(2, 16, 5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert torch.equal(out, layer(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_whole_module_in_any_type(dtype):
    x = torch.randn(2, 16, 5, 4, dtype=dtype)
    for layer in (CompressedSelfAttention(16, alpha=0.5), SelfAttention(16, alpha=0.5)):
        assert layer.to(dtype)(x).dtype == dtype


@both_formats
@pytest.mark.parametrize("groups", [1, 2])
def test_compiles_without_graph_breaks(memory_format, groups):
    layer = CompressedSelfAttention(8, maps=8, groups=groups, alpha=0.5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 8, 4, 3).to(memory_format=memory_format).requires_grad_()
    out = compiled(x)
    torch.testing.assert_close(out, layer(x))
    assert out.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(torch.autograd.grad(out.sum(), x), torch.autograd.grad(layer(x).sum(), x))
    assert compiled.last_path == "reordered"


def test_compiles_under_autocast():
    layer = CompressedSelfAttention(8, maps=8, alpha=0.5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 8, 4, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(x), layer(x))


def test_gpu_types_formats_and_autocast():
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
    layer = CompressedSelfAttention(64, alpha=0.5).cuda()
    for memory_format in FORMATS.values():
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            x = torch.randn(2, 64, 24, 8, device="cuda", dtype=dtype).to(memory_format=memory_format)
            with torch.autocast("cuda", torch.bfloat16):
                out = layer(x)
            assert out.dtype == dtype
            assert out.is_contiguous(memory_format=memory_format)


def test_exports_to_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    layer = CompressedSelfAttention(16, alpha=0.5).eval()
    program = torch.onnx.export(
        layer, (torch.randn(2, 16, 5, 4),), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False
    )
    program.save(str(tmp_path / "layer.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "layer.onnx"))
    for batch in (1, 7):
        x = torch.randn(batch, 16, 5, 4)
        (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(out), layer(x).detach(), rtol=1e-4, atol=1e-4)


def test_self_attention_equals_loops():
    layer = SelfAttention(8, reduction=4, alpha=0.3).double()
    x = torch.randn(1, 8, 2, 3, dtype=torch.float64)
    query, key, value = (conv(x)[0].flatten(1).detach() for conv in (layer.query, layer.key, layer.value))
    expected = x[0].flatten(1).clone()
    for i in range(6):
        scores = [math.exp(float(query[:, i] @ key[:, j])) for j in range(6)]
        for j in range(6):
            expected[:, i] += 0.3 * scores[j] / sum(scores) * value[:, j]
    torch.testing.assert_close(layer(x)[0].flatten(1).detach(), expected)


def test_errors_name_the_values():
    for make, words in (
        (lambda: CompressedSelfAttention(10, groups=4), "multiple of groups, got channels=10 and groups=4"),
        (lambda: CompressedSelfAttention(10, groups=0), "multiple of groups, got channels=10 and groups=0"),
        (lambda: CompressedSelfAttention(8, maps=0), "maps must be at least 1, got 0"),
        (lambda: CompressedSelfAttention(8, backend="cuda"), "use one of auto, reference, reordered, fused"),
        (lambda: SelfAttention(12, reduction=8), "multiple of reduction, got channels=12 and reduction=8"),
    ):
        with pytest.raises(UserError, match=words):
            make()
    for layer in (CompressedSelfAttention(8), SelfAttention(8)):
        with pytest.raises(ValueError, match=r"takes \(N, 8, H, W\), got \(2, 4, 3, 3\)"):
            layer(torch.randn(2, 4, 3, 3))
