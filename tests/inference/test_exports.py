"""Exports for the programs in which people run a model, through each consumer's own preparation of an image."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import onnx
import pytest
from torch.nn import functional

from csametric import load
from csametric.errors import UserError
from csametric.inference import exports
from csametric.inference.exports import CONSUMERS, export_for
from csametric.inference.onnx import ExportError
from csametric.inference.tracker_features import TrackerFeatures
from csametric.training import loop
from tests.data import people
from tests.training import tiny_reid


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    market = people.write_market(folder / "market")
    loop.train(tiny_reid.experiment("market1501", market, "epochs=1"), folder / "run")
    return load(folder / "run", device="cpu")


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """An export for each consumer, with 12 dimensions."""
    root = tmp_path_factory.mktemp("exported")
    for name in CONSUMERS:
        assert export_for(model, name, root / name, dimensions=12) > CONSUMERS[name].min_cosine
    return root


def features_by_script(script: Path, images: list[np.ndarray]) -> np.ndarray:
    """The features that a script's `embed` gives, in a process of its own."""
    code = "import runpy, sys, numpy as np; np.save(sys.argv[3], runpy.run_path(sys.argv[1])['embed'](np.load(sys.argv[2])))"
    with TemporaryDirectory() as folder:
        given, answer = Path(folder, "images.npy"), Path(folder, "features.npy")
        np.save(given, np.stack(images))
        subprocess.run([sys.executable, "-c", code, script, given, answer], check=True)
        return np.load(answer)


def frames(count: int) -> list[np.ndarray]:
    """Images of the model's size, BGR."""
    return [np.asarray(people.person(identity, 1, 0))[..., ::-1].copy() for identity in range(count)]


@pytest.mark.parametrize("name", CONSUMERS)
def test_the_script_of_each_consumer_gives_the_features_of_the_model(model, exported, name):
    images = frames(3)
    features = features_by_script(exported / name / "embed.py", images)
    own = model.embed(np.stack(images)[..., ::-1].copy(), dimensions=12)
    if CONSUMERS[name].has_unit_length:
        own = functional.normalize(own)
    np.testing.assert_allclose(features, own.numpy(), atol=0.02 if name == "openvino" else 1e-4)


def test_full_and_whitened_features(model, tmp_path):
    images = frames(2)
    rgb = np.stack(images)[..., ::-1].copy()
    export_for(model, "onnx", tmp_path / "full")
    full = features_by_script(tmp_path / "full" / "embed.py", images)
    np.testing.assert_allclose(full, model.embed(rgb).numpy(), atol=1e-4)
    export_for(model, "onnx", tmp_path / "white", dimensions=6, whiten=True)
    white = features_by_script(tmp_path / "white" / "embed.py", images)
    np.testing.assert_allclose(white, model.embed(rgb, dimensions=6, whiten=True).numpy(), atol=1e-3)


def test_files_beside_the_program(exported):
    metadata = json.loads((exported / "boxmot/model.onnx.metadata.json").read_text())
    assert metadata == {"schema_version": 1, "model_name": "pcb_csa", "preprocess": "resize", "img_size": [48, 16]}
    graph = onnx.load(exported / "boxmot/model.onnx").graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["images", "features"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param  # any number of images
    config = (exported / "deepstream/config_tracker.yml").read_text()
    assert "reidFeatureSize: 12" in config
    assert "inferDims: [3, 48, 16]" in config
    assert sorted(path.name for path in (exported / "openvino").iterdir()) == ["embed.py", "model.bin", "model.xml"]


def test_the_script_prints_the_feature_of_a_file(model, exported, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), frames(1)[0])
    script = exported / "onnx" / "embed.py"
    done = subprocess.run([sys.executable, script, tmp_path / "a.png"], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(done.stdout), model.embed(tmp_path / "a.png", dimensions=12)[0].numpy(), atol=1e-4)


def test_mistakes_leave_nothing(model, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(UserError, match="exists already; choose another folder"):
        export_for(model, "onnx", tmp_path / "mine")
    with pytest.raises(UserError, match="dimensions must be from 1 to"):
        export_for(model, "onnx", tmp_path / "export", dimensions=5000)
    monkeypatch.setattr(exports, "_check", lambda *_: float("nan"))
    with pytest.raises(ExportError, match=r"gives other features than the model \(cosine nan\)"):
        export_for(model, "onnx", tmp_path / "export")
    monkeypatch.setattr(exports, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"needs the package openvino; pip install 'csametric\[openvino\]'"):
        export_for(model, "openvino", tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_tracker_gets_unit_features_of_its_boxes(model):
    frame = np.full((100, 200, 3), 90, np.uint8)
    person = np.asarray(people.person(7, 1, 0))
    frame[20:68, 50:66] = person[..., ::-1]
    backend = TrackerFeatures(model, dimensions=12)
    features = backend.get_features([[50, 20, 66, 68], [-10, -10, 30, 40], [300, 0, 310, 20]], frame)
    own = functional.normalize(model.embed(person[None], dimensions=12)).numpy()
    np.testing.assert_allclose(features[0], own[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [1, 1, 0], atol=1e-5)
    assert backend.get_features(np.zeros((0, 4)), frame).shape == (0, 12)
    assert TrackerFeatures(model).get_features([[0, 0, 9, 9]], frame).shape == (1, model.model.dimensions)
    with pytest.raises(UserError, match=r"boxes must be \(N, 4\)"):
        backend.get_features([[1, 2, 3]], frame)


def test_a_script_that_fails_is_named_by_its_last_line():
    with pytest.raises(ExportError, match=r"cannot be written or run \(no libxyz\)"):
        exports._run_python("-c", "raise SystemExit('warning\\nno libxyz')")
