"""`csametric export`: bundles of trained and converted runs, mistakes in one sentence."""

from pathlib import Path

import pytest
import torch

from csametric import L2Net
from csametric.files import write_text
from csametric.inference.onnx import ExportError
from csametric.runs.experiment import BrownExperiment
from csametric.runs.folder import EXPERIMENT, SCORES, WEIGHTS, read_scores, save_weights
from csametric.runs.overrides import to_json
from csametric.training import loop
from tests.data import people
from tests.training import tiny_reid


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    market = people.write_market(folder / "market")
    loop.train(tiny_reid.experiment("market1501", market, "epochs=2"), folder / "run")
    return folder


def test_a_bundle_can_be_evaluated(work, called_here):
    done = called_here("export", "run", "--bundle", "bundle", "--no-onnx", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "bundle/model.safetensors" in done.stdout
    assert not (work / "bundle" / "model.onnx").exists()
    files = sorted((work / "bundle").iterdir())
    scored = called_here("evaluate", "bundle", "--data", "market1501:market", cwd=work)
    assert scored.returncode == 0, scored.stderr
    assert sorted((work / "bundle").iterdir()) == files
    assert list((work / "bundle-evaluation").glob("*.json"))
    assert f"{100 * read_scores(work / 'run')['map_step']:.2f}" in scored.stdout
    without = called_here("evaluate", "bundle", cwd=work)
    assert without.returncode == 2
    assert "--data KIND:PATH" in without.stderr


def test_the_card_of_converted_weights_says_that_nothing_was_measured(tmp_path, called_here):
    torch.manual_seed(0)
    experiment = BrownExperiment(recipe="brown_hardnet")
    save_weights(tmp_path / "run" / WEIGHTS, L2Net())
    write_text(tmp_path / "run" / EXPERIMENT, to_json(experiment))
    done = called_here("export", "run", "--bundle", "bundle", "--no-onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "Nothing was measured" in card
    assert "liberty" not in card
    assert not (tmp_path / "bundle" / SCORES).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--bundle", "out"], "is not a run"),
        (["run", "--bundle", "market"], "holds files and is not a bundle"),
        (["run", "--bundle", "run"], "holds files and is not a bundle"),
    ],
)
def test_mistakes_are_one_sentence_with_exit_status_2(work, called_here, arguments, message):
    done = called_here("export", *arguments, cwd=work)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_export_for_a_consumer_says_what_its_input_is(work, called_here):
    done = called_here("export", "run", "--for", "boxmot", "--out", "tracker", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "input: RGB, normalised by ImageNet's mean and deviation; checked on a photograph: cosine 1.0000" in done.stdout
    for arguments in (["--for", "boxmot"], ["--for", "boxmot", "--out", "x", "--bundle", "y"], [], ["--out", "x"]):
        done = called_here("export", "run", *arguments, cwd=work)
        assert done.returncode == 2
        assert "--for needs --out FOLDER" in done.stderr or "give --bundle FOLDER" in done.stderr


def test_missing_onnx_packages_are_explained(work, called_here, monkeypatch):
    monkeypatch.setattr("csametric.inference.onnx.find_spec", lambda name: None if name == "onnxscript" else object())
    done = called_here("export", "run", "--bundle", "other", cwd=work)
    assert done.returncode == 2
    assert "model.onnx needs onnxscript; pip install 'csametric[onnx]', or write" in done.stderr
    assert "--no-onnx" in done.stderr
    assert not (work / "other").exists()


def test_an_onnx_model_that_differs_has_exit_status_1(work, called_here, monkeypatch):
    def differ(*_):
        raise ExportError("the features differ by 1.0")

    monkeypatch.setattr("csametric.inference.bundle.write_onnx", differ)
    done = called_here("export", "run", "--bundle", "other", cwd=work)
    assert done.returncode == 1
    assert "the features differ by 1.0 (on the command line: --no-onnx)" in done.stderr
    assert not (work / "other").exists()
