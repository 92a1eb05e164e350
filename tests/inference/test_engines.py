"""Every engine computes the model's features; programs are written once, and again when the weights change."""

import errno
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from csametric import load
from csametric.errors import UserError
from csametric.files import write_text
from csametric.inference.bundle import write_bundle
from csametric.inference.engines import TorchEngine
from csametric.runs.folder import EXPERIMENT, INT8_MODEL, ONNX_MODEL, save_weights, weights_of
from csametric.runs.overrides import to_json
from tests.inference.inputs import random_inputs


@pytest.fixture(scope="module")
def run(people_run, tmp_path_factory):
    """A run whose programs are written by these tests."""
    return shutil.copytree(people_run, tmp_path_factory.mktemp("engines") / "run")


@pytest.fixture(scope="module")
def images(run):
    return random_inputs(load(run))


@pytest.fixture(scope="module")
def features(run, images):
    """Computed by the model itself, without folding."""
    model = load(run)
    return TorchEngine(model.model, model.device, model.precision).embed(images)


def min_cosine(a, b) -> float:
    return float(np.min(np.sum(a * b, 1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))


@pytest.mark.parametrize(("engine", "cosine"), [("torch", 0.999999), ("onnxruntime", 0.999999), ("onnxruntime-int8", 0.99)])
def test_every_engine_computes_the_models_features(run, images, features, engine, cosine):
    model = load(run, engine=engine)
    assert model.engine.name == engine
    assert min_cosine(model.embed(images).numpy(), features) > cosine
    flipped = TorchEngine(model.model, model.device, model.precision).embed(images, flip=True)
    assert min_cosine(model.embed(images, flip=True).numpy(), flipped) > cosine
    parts = model.embed(images, flip=True).unflatten(1, (model.model.parts, -1)).norm(dim=2)
    torch.testing.assert_close(parts, torch.ones_like(parts))


def test_8_bits_are_not_those_of_32(run, images):
    programs = [load(run, engine=engine).embed(images) for engine in ("onnxruntime", "onnxruntime-int8")]
    assert not torch.allclose(*programs, atol=1e-5)


def test_a_program_is_written_once_and_again_for_other_weights(run, images, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    load(copy, engine="onnxruntime-int8")
    written = [(copy / name).stat().st_mtime_ns for name in (ONNX_MODEL, INT8_MODEL)]
    model = load(copy, engine="onnxruntime-int8")
    assert [(copy / name).stat().st_mtime_ns for name in (ONNX_MODEL, INT8_MODEL)] == written
    before = load(copy, engine="onnxruntime").embed(images)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.mul_(1.1)
    save_weights(weights_of(copy), model.model)
    after = load(copy, engine="onnxruntime").embed(images)
    assert not torch.allclose(before, after, atol=1e-5)
    assert min_cosine(after.numpy(), load(copy).embed(images).numpy()) > 0.999999


def test_a_bundle_uses_the_programs_that_it_carries(run, images, tmp_path):
    features = load(run, engine="onnxruntime-int8").embed(images)
    write_bundle(run, tmp_path / "bundle")
    written = {name: (tmp_path / "bundle" / name).stat().st_mtime_ns for name in (ONNX_MODEL, INT8_MODEL)}
    torch.testing.assert_close(load(tmp_path / "bundle", engine="onnxruntime-int8").embed(images), features, rtol=0, atol=0)
    assert {name: (tmp_path / "bundle" / name).stat().st_mtime_ns for name in written} == written


def test_8_bits_without_the_training_images_say_so(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / INT8_MODEL).unlink(missing_ok=True)
    experiment = load(copy).experiment
    moved = replace(experiment, data=replace(experiment.data, path=str(tmp_path / "gone")))
    write_text(copy / EXPERIMENT, to_json(moved))
    with pytest.raises(UserError, match=r"need the training images.*use the engine onnxruntime"):
        load(copy, engine="onnxruntime-int8")


def test_unknown_engines_and_descriptors_are_refused(run, patch_run):
    with pytest.raises(UserError, match="unknown engine 'tensorrt'; use one of torch, onnxruntime, onnxruntime-int8"):
        load(run, engine="tensorrt")
    with pytest.raises(UserError, match="is a descriptor"):
        load(patch_run, engine="onnxruntime")


def test_a_folder_that_may_not_be_written_is_named(run, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / ONNX_MODEL).unlink(missing_ok=True)

    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("csametric.files.temporary_path", refuse)
    with pytest.raises(UserError, match=r"cannot be written into.*Read-only file system.*use the engine torch"):
        load(copy, engine="onnxruntime")


def test_moving_a_model_keeps_its_features(run, images):
    model = load(run)
    before = model.embed(images)
    torch.testing.assert_close(model.to(torch.device("cpu")).embed(images), before, rtol=0, atol=0)
