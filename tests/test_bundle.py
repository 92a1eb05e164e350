"""A bundle gives what its run gives, says what was measured, and tells nothing of the machine it was made on."""

import json
import re

import numpy as np
import pytest
import torch

from csametric import load
from csametric.bundle import CARD, CONFIG, ONNX, Bundle, without_paths, write_bundle
from csametric.cli.runs import scores_table
from csametric.errors import UserError
from csametric.recipes import RECIPES, find_recipe
from csametric.training import checkpoint, loop
from tests.data import people
from tests.training import tiny, tiny_reid


@pytest.fixture(scope="module")
def of_people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    market = people.write_market(folder / "market")
    loop.train(tiny_reid.experiment("market1501", market, "epochs=2"), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def of_patches(tmp_path_factory, photo_folder, cache):
    run = tmp_path_factory.mktemp("patches") / "run"
    loop.train(tiny.experiment(photo_folder, "steps=3"), run, cache)
    return run


@pytest.fixture(scope="module", params=["of_people", "of_patches"])
def bundled(request, tmp_path_factory):
    """A run and its bundle."""
    run = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    write_bundle(run, folder, scores_table(run))
    return run, folder


def inputs_of(model) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (5, 48, 16, 3) if hasattr(model.experiment, "epochs") else (5, 32, 32)
    return rng.integers(0, 256, shape, np.uint8)


def test_it_loads_back_to_the_same_features(bundled):
    run, folder = bundled
    model, again, by_hub = load(run), load(folder), Bundle.from_pretrained(folder)
    images = inputs_of(model)
    assert torch.equal(model.embed(images), again.embed(images))
    assert torch.equal(model.embed(images), by_hub.embed(images))


def test_the_onnx_program_gives_the_same_features_for_any_batch(bundled):
    import onnxruntime

    run, folder = bundled
    model = load(run)
    session = onnxruntime.InferenceSession(str(folder / ONNX))
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    for count in (1, 5):
        images = inputs_of(model)[:count]
        prepared = images.transpose(0, 3, 1, 2) / 255 if taken.name == "images" else images[:, None]
        (features,) = session.run([given.name], {taken.name: prepared.astype(np.float32)})
        expected = model.embed(images).numpy()
        cosines = (features * expected).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(expected, axis=1)
        assert np.abs(cosines - 1).max() < 1e-3, "the model itself may run in bf16"


def test_the_card_has_the_figures_of_the_scores(bundled):
    run, folder = bundled
    text = (folder / CARD).read_text()
    scores = checkpoint.read_scores(run)
    wanted = scores["map_trapezoid"] if "map_trapezoid" in scores else scores["levels"]["hard"]["accuracy"]
    assert f" {100 * wanted:.2f} |" in text
    assert text.startswith("---\nlicense: apache-2.0\nlibrary_name: csametric\n")
    assert "compressed self-attention" in text
    assert "64 images of 8 identities" in text or "4 photographs without labels: 200 keypoints" in text
    assert not re.search(r"\{\{|\{%|\n\n\n\n", text)


def test_no_path_of_the_machine_is_in_it(bundled):
    run, folder = bundled
    assert re.search("/tmp/", (run / checkpoint.EXPERIMENT).read_text())
    for path in folder.iterdir():
        content = path.read_bytes()
        assert not re.search(rb"/(tmp|home|root|work|Users)/|photo1.png", content), path.name
    assert json.loads((folder / CONFIG).read_text())["num_ids"] in (8, None)


def test_saved_again_it_is_the_same(bundled, tmp_path):
    _, folder = bundled
    Bundle.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()
    }


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_can_be_told_without_paths(recipe):
    experiment = find_recipe(recipe)
    assert type(without_paths(experiment)) is type(experiment)


def test_other_folders_are_left_alone_and_bundles_replaced(of_people, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match="holds files and is no bundle"):
        write_bundle(of_people, tmp_path / "other", scores_table(of_people), onnx=False)
    for _ in range(2):
        write_bundle(of_people, tmp_path / "bundle", scores_table(of_people), onnx=False)
    assert not (tmp_path / "bundle" / ONNX).exists()
    assert "onnxruntime" not in (tmp_path / "bundle" / CARD).read_text()


def test_a_failure_leaves_nothing_half_done(of_people, tmp_path, monkeypatch):
    monkeypatch.setattr("csametric.bundle.write_onnx", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_bundle(of_people, tmp_path / "bundle", scores_table(of_people))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_bundle_is_explained(of_people, tmp_path):
    write_bundle(of_people, tmp_path / "bundle", scores_table(of_people), onnx=False)
    weights = tmp_path / "bundle" / checkpoint.BUNDLED_WEIGHTS
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged"):
        load(tmp_path / "bundle")
