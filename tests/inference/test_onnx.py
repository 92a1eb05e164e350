"""The ONNX program of a bundle computes what the model computes, or the export fails."""

import numpy as np
import pytest

from csametric import load
from csametric.inference.bundle import write_bundle
from csametric.inference.onnx import ExportError, MissingOnnxError
from csametric.runs.folder import ONNX_MODEL
from tests.inference.inputs import random_inputs


def test_the_onnx_program_gives_the_models_features_for_any_batch_size(bundled):
    import onnxruntime

    run, folder = bundled
    model = load(run)
    session = onnxruntime.InferenceSession(str(folder / ONNX_MODEL))
    (program_input,), (program_output,) = session.get_inputs(), session.get_outputs()
    for count in (1, 5):
        images = random_inputs(model)[:count]
        prepared = images.transpose(0, 3, 1, 2) / 255 if program_input.name == "images" else images[:, None]
        (features,) = session.run([program_output.name], {program_input.name: prepared.astype(np.float32)})
        expected = model.embed(images).numpy()
        cosines = (features * expected).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(expected, axis=1)
        assert np.abs(cosines - 1).max() < 1e-3, "the model itself may run in bf16"


def test_onnx_programs_with_other_features_are_refused(people_run, tmp_path, monkeypatch):
    monkeypatch.setattr("csametric.inference.onnx._largest_difference", lambda *_: float("nan"))
    with pytest.raises(ExportError, match=r"differ from the model's by nan.*onnx=False"):
        write_bundle(people_run, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(people_run, tmp_path, monkeypatch):
    monkeypatch.setattr("csametric.inference.onnx.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(MissingOnnxError, match=r"model.onnx needs onnxscript; .* or write the bundle with onnx=False"):
        write_bundle(people_run, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
