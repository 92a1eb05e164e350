"""PCB with attention works beyond eager fp32: ONNX with any batch size, torch.export, half precision."""

import pytest
import torch

from csametric import PCB


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "normalised"])
def model(request) -> PCB:
    torch.manual_seed(0)
    model = PCB("resnet18", num_ids=5, attention="csa", alpha=0.5, attention_norm=request.param)
    model.train()(torch.randn(4, 3, 96, 32))
    return model.eval()


def test_onnx_runtime_gives_the_same_features(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(model, (torch.randn(2, 3, 96, 32),), dynamo=True, dynamic_shapes=batch, verbose=False)
    program.save(str(tmp_path / "pcb.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "pcb.onnx"))
    for images in (torch.randn(1, 3, 96, 32), torch.randn(7, 3, 96, 32)):
        *logits, features = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        with torch.no_grad():
            expected = model(images)
        torch.testing.assert_close(torch.from_numpy(features), expected.features, rtol=1e-4, atol=1e-4)
        for part_logits, expected_logits in zip(logits, expected.logits, strict=True):
            torch.testing.assert_close(torch.from_numpy(part_logits), expected_logits, rtol=1e-4, atol=1e-4)


def test_an_exported_program_gives_the_same_features(model, tmp_path):
    images = torch.randn(2, 3, 96, 32)
    program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "pcb.pt2")
    reloaded = torch.export.load(tmp_path / "pcb.pt2").module()
    for batch in (images, torch.randn(5, 3, 96, 32)):
        torch.testing.assert_close(reloaded(batch).features, model(batch).features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_features_are_close_to_fp32(model, dtype):
    images = torch.randn(2, 3, 96, 32)
    with torch.no_grad():
        expected = model(images).features
        model.to(dtype)
        features = model(images.to(dtype)).features
        model.float()
    cosines = torch.cosine_similarity(features.float(), expected, dim=1)
    assert (cosines > (0.999 if dtype == torch.float16 else 0.99)).all()
