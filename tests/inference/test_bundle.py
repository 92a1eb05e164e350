"""A bundle gives what its run gives, says what was measured, and tells nothing of the machine it was made on."""

import json
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from torch import nn

from csametric import files, load
from csametric.errors import UserError
from csametric.files import write_text
from csametric.inference.bundle import CARD, ONNX, Bundle, ExportError, write_bundle
from csametric.recipes import RECIPES, find_recipe
from csametric.runs.folder import (
    BUNDLED_WEIGHTS,
    CONFIG,
    ENVIRONMENT,
    EXPERIMENT,
    read_environment,
    read_experiment,
    read_scores,
    save_weights,
)
from csametric.runs.overrides import override
from csametric.training import loop
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
    write_bundle(run, folder)
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
    scores = read_scores(run)
    wanted = scores["map_trapezoid"] if "map_trapezoid" in scores else scores["levels"]["hard"]["accuracy"]
    assert f" {100 * wanted:.2f} |" in text
    assert text.startswith("---\nlicense: apache-2.0\nlibrary_name: csametric\n")
    assert "compressed self-attention" in text
    assert "64 images of 8 identities" in text or "4 photographs without labels: 200 keypoints" in text
    assert not re.search(r"\{\{|\{%|\n\n\n\n", text)


def test_no_path_of_the_machine_is_in_it(bundled):
    run, folder = bundled
    assert re.search("/tmp/", (run / EXPERIMENT).read_text())
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


def test_saved_into_a_folder_of_something_else_it_removes_nothing(of_people, tmp_path):
    write_bundle(of_people, tmp_path / "bundle", onnx=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ONNX).write_text("my own")
    Bundle(tmp_path / "bundle").save_pretrained(tmp_path / "other")
    assert (tmp_path / "other" / ONNX).read_text() == "my own"


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_can_be_told_without_paths(recipe):
    experiment = find_recipe(recipe)
    assert type(experiment.without_paths()) is type(experiment)


def test_other_folders_are_left_alone_and_bundles_replaced(of_people, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match="holds files and is no bundle"):
        write_bundle(of_people, tmp_path / "other", onnx=False)
    for _ in range(2):
        write_bundle(of_people, tmp_path / "bundle", onnx=False)
    assert not (tmp_path / "bundle" / ONNX).exists()
    assert "onnxruntime" not in (tmp_path / "bundle" / CARD).read_text()


def test_a_failure_leaves_nothing_half_done(of_people, tmp_path, monkeypatch):
    monkeypatch.setattr("csametric.inference.bundle.write_onnx", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_bundle(of_people, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def python_of(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_lines_of_the_card_run_as_printed(bundled, tmp_path, monkeypatch):
    _, folder = bundled
    shutil.copytree(folder, tmp_path / folder.name)
    for name in ("a.jpg", "b.jpg"):
        people.person(1, 1, ord(name[0])).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    told: dict = {}
    found = []
    blocks = python_of((folder / CARD).read_text())
    assert len(blocks) == 3
    for block in blocks:
        exec(block, told)
        found.append(np.asarray(told["features" if "features" in told else "descriptors"]))
    np.testing.assert_array_equal(found[0], found[1])
    assert ((found[0] * found[2]).sum(1) / (found[0] ** 2).sum(1)).min() > 0.99, "the model itself may run in bf16"


def test_the_card_has_the_hubs_metadata(bundled):
    _, folder = bundled
    data = ModelCard.load(folder / CARD).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "csametric", "image-feature-extraction")
    assert {"csametric", "metric-learning", "self-attention"} < set(data.tags)


def test_saved_onto_itself_it_is_whole(bundled, tmp_path):
    _, folder = bundled
    copy = shutil.copytree(folder, tmp_path / "copy")
    Bundle.from_pretrained(copy).save_pretrained(copy)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in copy.iterdir()
    }


class Hub:
    """What huggingface_hub would send to and get from its server, in a folder."""

    def __init__(self, token=None):
        pass

    def create_repo(self, repo_id, private, exist_ok):
        return type("Repository", (), {"repo_id": repo_id})

    def upload_folder(self, *, repo_id, folder_path, **_):
        self.stored[repo_id] = {path.name: path.read_bytes() for path in folder_path.iterdir()}
        return repo_id


def test_pushed_it_has_its_own_files_only(bundled, tmp_path, monkeypatch):
    _, folder = bundled
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "evaluation").mkdir()
    (copy / "evaluation" / "people.json").write_text('{"data": "folder:/home/me/people"}')
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    monkeypatch.setattr(Hub, "stored", {}, raising=False)
    Bundle.from_pretrained(copy).push_to_hub("me/model")
    assert Hub.stored["me/model"] == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_repository_of_the_hub(bundled, monkeypatch):
    run, folder = bundled
    asked = []

    def snapshot(name, **options):
        asked.append((name, options))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", lambda filename, **_: str(folder / filename))
    monkeypatch.setattr("csametric.inference.bundle.snapshot_download", snapshot)
    images = inputs_of(load(run))
    assert torch.equal(Bundle.from_pretrained("me/model", revision="main").embed(images), load(run).embed(images))
    ((name, options),) = asked
    assert (name, options["revision"]) == ("me/model", "main")
    assert set(options["allow_patterns"]) >= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("files", "mend"),
    [
        ({"config.json": '{"model_type": "bert"}', "model.safetensors": "theirs"}, "is no bundle"),
        ({"config.json": '{"library_name": "csametric"}', ".git/HEAD": "ref"}, "holds .git beside the bundle"),
        ({"experiment.json": "{}"}, "is no bundle"),
    ],
)
def test_nothing_but_a_bundle_is_replaced(of_people, tmp_path, files, mend):
    for name, content in files.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(content)
    with pytest.raises(UserError, match=mend):
        write_bundle(of_people, tmp_path / "out", onnx=False)
    assert {name: (tmp_path / "out" / name).read_text() for name in files} == files


def test_a_file_a_bundle_and_the_folder_one_is_in(of_people, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is no folder"):
        write_bundle(of_people, tmp_path / "file", onnx=False)
    (tmp_path / "here").mkdir()
    with monkeypatch.context() as there:
        there.chdir(tmp_path / "here")
        with pytest.raises(UserError, match="name a folder in it"):
            write_bundle(of_people, Path(), onnx=False)
    write_bundle(of_people, tmp_path / "here", onnx=False)
    assert (tmp_path / "here" / CARD).read_text().count('load("here")') == 1
    with pytest.raises(UserError, match="is a bundle already"):
        write_bundle(tmp_path / "here", tmp_path / "again", onnx=False)


def test_a_failure_leaves_the_bundle_that_was_there(of_people, tmp_path, monkeypatch):
    write_bundle(of_people, tmp_path / "bundle", onnx=False)
    before = {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()}
    monkeypatch.setattr("csametric.inference.bundle.card", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_bundle(of_people, tmp_path / "bundle", onnx=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_name_is_no_markup_in_the_card(of_people, tmp_path):
    folder = tmp_path / "<img onerror=x> [a](b) | `c`"
    write_bundle(of_people, folder, onnx=False)
    title = next(line for line in (folder / CARD).read_text().splitlines() if line.startswith("# "))
    assert title == r"# \<img onerror=x\> \[a\](b) \| \`c\`"


def test_two_at_once_leave_one_whole_bundle(of_people, of_patches, tmp_path):
    """The second to come finds the first's bundle, of other weights, and is refused; whichever wins, it is whole."""
    outcomes = []

    def write(run):
        try:
            write_bundle(run, tmp_path / "bundle", onnx=False)
            outcomes.append("made")
        except UserError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=write, args=(run,)) for run in (of_people, of_patches)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted("is a bundle of other weights" in outcome for outcome in outcomes) == [False, True]
    assert "made" in outcomes
    load(tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_after_a_kill_between_the_renames_the_old_one_is_put_back(of_people, tmp_path, monkeypatch):
    write_bundle(of_people, tmp_path / "bundle", onnx=False)
    (tmp_path / "bundle").rename(tmp_path / ".bundle.old")
    (tmp_path / ".csametric-0123456789abcdef.part").mkdir()
    files._cleaned.clear()  # as in the process after the killed one
    monkeypatch.setattr("csametric.inference.bundle.card", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_bundle(of_people, tmp_path / "bundle", onnx=False)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    load(tmp_path / "bundle")


def test_an_onnx_program_that_says_something_else_is_refused(of_people, tmp_path, monkeypatch):
    monkeypatch.setattr("csametric.inference.bundle._largest_error", lambda *_: float("nan"))
    with pytest.raises(ExportError, match="--no-onnx"):
        write_bundle(of_people, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "damage", "mend"),
    [
        (BUNDLED_WEIGHTS, lambda path: path.write_bytes(path.read_bytes()[:1000]), "damaged.*get the bundle again"),
        (BUNDLED_WEIGHTS, lambda path: path.unlink(), "model.safetensors is missing in .*: get the bundle again"),
        (EXPERIMENT, lambda path: path.write_text("{"), "damaged.*get the bundle again"),
        (BUNDLED_WEIGHTS, lambda path: save_weights(path, nn.Linear(2, 2)), "does not fit"),
    ],
    ids=["cut weights", "no weights", "cut experiment", "other weights"],
)
def test_a_damaged_bundle_is_explained(of_people, tmp_path, name, damage, mend):
    write_bundle(of_people, tmp_path / "bundle", onnx=False)
    damage(tmp_path / "bundle" / name)
    with pytest.raises(UserError, match=mend):
        load(tmp_path / "bundle")


def test_a_file_of_weights_keeps_its_name_alone(of_people):
    experiment = override(read_experiment(of_people), ["model.pretrained=/data/me/r50.pth"])
    assert experiment.without_paths().model.pretrained == "r50.pth"


def test_another_models_bundle_is_not_replaced(of_people, of_patches, tmp_path):
    write_bundle(of_people, tmp_path / "bundle", onnx=False)
    with pytest.raises(UserError, match=r"is a bundle of other weights or data \(pcb_csa\)"):
        write_bundle(of_patches, tmp_path / "bundle", onnx=False)
    shutil.copytree(of_people, tmp_path / "run")
    environment = read_environment(of_people) | {"data": {"train": 64, "identities": 8, "digest": "other"}}
    write_text(tmp_path / "run" / ENVIRONMENT, json.dumps(environment))
    with pytest.raises(UserError, match="is a bundle of other weights or data"):
        write_bundle(tmp_path / "run", tmp_path / "bundle", onnx=False)
    assert load(tmp_path / "bundle").embed(inputs_of(load(of_people))).shape[0] == 5
