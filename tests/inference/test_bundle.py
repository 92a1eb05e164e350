"""A bundle embeds as its run does, reports the run's scores, and contains no path of the machine it was written on."""

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
from csametric.inference.bundle import CARD, Bundle, write_bundle
from csametric.recipes import RECIPES, find_recipe
from csametric.runs.folder import (
    BUNDLED_WEIGHTS,
    CONFIG,
    ENVIRONMENT,
    EXPERIMENT,
    ONNX_MODEL,
    read_environment,
    read_experiment,
    read_scores,
    save_weights,
)
from csametric.runs.overrides import override
from tests.data import people
from tests.inference.inputs import random_inputs


def test_loading_a_bundle_gives_the_features_of_its_run(bundled):
    run, folder = bundled
    model, from_bundle, from_hub = load(run), load(folder), Bundle.from_pretrained(folder)
    images = random_inputs(model)
    assert torch.equal(model.embed(images), from_bundle.embed(images))
    assert torch.equal(model.embed(images), from_hub.embed(images))


def test_the_card_reports_the_scores_of_the_run(bundled):
    run, folder = bundled
    text = (folder / CARD).read_text()
    scores = read_scores(run)
    score = scores["map_trapezoid"] if "map_trapezoid" in scores else scores["levels"]["hard"]["accuracy"]
    assert f" {100 * score:.2f} |" in text
    assert text.startswith("---\nlicense: apache-2.0\nlibrary_name: csametric\n")
    assert "compressed self-attention" in text
    assert "64 images of 8 identities" in text or "4 photographs without labels: 200 keypoints" in text
    assert not re.search(r"\{\{|\{%|\n\n\n\n", text)


def test_a_bundle_contains_no_path_of_the_machine(bundled):
    run, folder = bundled
    assert re.search("/tmp/", (run / EXPERIMENT).read_text())
    for path in folder.iterdir():
        content = path.read_bytes()
        assert not re.search(rb"/(tmp|home|root|work|Users)/|photo1.png", content), path.name
    assert json.loads((folder / CONFIG).read_text())["num_ids"] in (8, None)


def test_saving_a_bundle_copies_all_its_files(bundled, tmp_path):
    _, folder = bundled
    Bundle.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()
    }


def test_saving_a_bundle_into_another_folder_removes_nothing_there(people_run, tmp_path):
    write_bundle(people_run, tmp_path / "bundle", onnx=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ONNX_MODEL).write_text("my own")
    Bundle(tmp_path / "bundle").save_pretrained(tmp_path / "other")
    assert (tmp_path / "other" / ONNX_MODEL).read_text() == "my own"


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_experiment_can_drop_its_paths(recipe):
    experiment = find_recipe(recipe)
    assert type(experiment.without_paths()) is type(experiment)


def test_only_bundles_are_replaced(people_run, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match="holds files and is not a bundle"):
        write_bundle(people_run, tmp_path / "other", onnx=False)
    for _ in range(2):
        write_bundle(people_run, tmp_path / "bundle", onnx=False)
    assert not (tmp_path / "bundle" / ONNX_MODEL).exists()
    assert "onnxruntime" not in (tmp_path / "bundle" / CARD).read_text()


def test_a_failed_export_leaves_no_files(people_run, tmp_path, monkeypatch):
    monkeypatch.setattr("csametric.inference.bundle.write_onnx", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_bundle(people_run, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_examples_on_the_card_run_as_printed(bundled, tmp_path, monkeypatch):
    _, folder = bundled
    shutil.copytree(folder, tmp_path / folder.name)
    for name in ("a.jpg", "b.jpg"):
        people.person(1, 1, ord(name[0])).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    variables: dict = {}
    outputs = []
    blocks = python_blocks((folder / CARD).read_text())
    assert len(blocks) == 3
    for block in blocks:
        exec(block, variables)
        outputs.append(np.asarray(variables["features" if "features" in variables else "descriptors"]))
    by_load, by_hub, by_onnx = outputs
    np.testing.assert_array_equal(by_load, by_hub)
    assert ((by_load * by_onnx).sum(1) / (by_load**2).sum(1)).min() > 0.99, "the model itself may run in bf16"


def test_the_card_carries_the_metadata_of_the_hub(bundled):
    _, folder = bundled
    data = ModelCard.load(folder / CARD).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "csametric", "image-feature-extraction")
    assert {"csametric", "metric-learning", "self-attention"} < set(data.tags)


def test_saving_a_bundle_onto_itself_keeps_every_file(bundled, tmp_path):
    _, folder = bundled
    copy = shutil.copytree(folder, tmp_path / "copy")
    Bundle.from_pretrained(copy).save_pretrained(copy)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in copy.iterdir()
    }


class Hub:
    """A stand-in for the hub's server that stores uploaded files in memory."""

    def __init__(self, token=None):
        pass

    def create_repo(self, repo_id, private, exist_ok):
        return type("Repository", (), {"repo_id": repo_id})

    def upload_folder(self, *, repo_id, folder_path, **_):
        self.stored[repo_id] = {path.name: path.read_bytes() for path in folder_path.iterdir()}
        return repo_id


def test_pushing_uploads_only_the_files_of_the_bundle(bundled, tmp_path, monkeypatch):
    _, folder = bundled
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "evaluation").mkdir()
    (copy / "evaluation" / "people.json").write_text('{"data": "folder:/home/me/people"}')
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    monkeypatch.setattr(Hub, "stored", {}, raising=False)
    Bundle.from_pretrained(copy).push_to_hub("me/model")
    assert Hub.stored["me/model"] == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bundle_loads_from_a_repository_on_the_hub(bundled, monkeypatch):
    run, folder = bundled
    requests = []

    def snapshot(name, **options):
        requests.append((name, options))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", lambda filename, **_: str(folder / filename))
    monkeypatch.setattr("csametric.inference.bundle.snapshot_download", snapshot)
    images = random_inputs(load(run))
    assert torch.equal(Bundle.from_pretrained("me/model", revision="main").embed(images), load(run).embed(images))
    ((name, options),) = requests
    assert (name, options["revision"]) == ("me/model", "main")
    assert set(options["allow_patterns"]) >= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": '{"model_type": "bert"}', "model.safetensors": "theirs"}, "is not a bundle"),
        ({"config.json": '{"library_name": "csametric"}', ".git/HEAD": "ref"}, "holds .git besides the bundle"),
        ({"experiment.json": "{}"}, "is not a bundle"),
    ],
)
def test_folders_with_other_files_are_refused_and_unchanged(people_run, tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(content)
    with pytest.raises(UserError, match=message):
        write_bundle(people_run, tmp_path / "out", onnx=False)
    assert {name: (tmp_path / "out" / name).read_text() for name in files} == files


def test_files_bundles_and_the_current_folder_are_refused(people_run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not a folder"):
        write_bundle(people_run, tmp_path / "file", onnx=False)
    (tmp_path / "here").mkdir()
    with monkeypatch.context() as inside:
        inside.chdir(tmp_path / "here")
        with pytest.raises(UserError, match="choose a folder in it"):
            write_bundle(people_run, Path(), onnx=False)
    write_bundle(people_run, tmp_path / "here", onnx=False)
    assert (tmp_path / "here" / CARD).read_text().count('load("here")') == 1
    with pytest.raises(UserError, match="is already a bundle"):
        write_bundle(tmp_path / "here", tmp_path / "again", onnx=False)


def test_a_failed_export_keeps_the_existing_bundle(people_run, tmp_path, monkeypatch):
    write_bundle(people_run, tmp_path / "bundle", onnx=False)
    before = {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()}
    monkeypatch.setattr("csametric.inference.bundle.card", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_bundle(people_run, tmp_path / "bundle", onnx=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_markup_in_a_name_is_escaped_in_the_card(people_run, tmp_path):
    folder = tmp_path / "<img onerror=x> [a](b) | `c`"
    write_bundle(people_run, folder, onnx=False)
    title = next(line for line in (folder / CARD).read_text().splitlines() if line.startswith("# "))
    assert title == r"# \<img onerror=x\> \[a\](b) \| \`c\`"


def test_concurrent_exports_leave_one_complete_bundle(people_run, patch_run, tmp_path):
    """The slower export is refused because it finds a bundle of other weights; whichever wins, its bundle is complete."""
    outcomes = []

    def write(run):
        try:
            write_bundle(run, tmp_path / "bundle", onnx=False)
            outcomes.append("written")
        except UserError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=write, args=(run,)) for run in (people_run, patch_run)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted("is a bundle of other weights" in outcome for outcome in outcomes) == [False, True]
    assert "written" in outcomes
    load(tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_kill_between_the_renames_keeps_the_old_bundle(people_run, tmp_path, monkeypatch):
    write_bundle(people_run, tmp_path / "bundle", onnx=False)
    (tmp_path / "bundle").rename(tmp_path / ".bundle.old")
    (tmp_path / ".csametric-0123456789abcdef.part").mkdir()
    files._cleaned.clear()  # as in the process after the killed one
    monkeypatch.setattr("csametric.inference.bundle.card", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_bundle(people_run, tmp_path / "bundle", onnx=False)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    load(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (BUNDLED_WEIGHTS, lambda path: path.write_bytes(path.read_bytes()[:1000]), "damaged.*get the bundle again"),
        (BUNDLED_WEIGHTS, lambda path: path.unlink(), "model.safetensors is missing in .*: get the bundle again"),
        (EXPERIMENT, lambda path: path.write_text("{"), "damaged.*get the bundle again"),
        (BUNDLED_WEIGHTS, lambda path: save_weights(path, nn.Linear(2, 2)), "does not fit"),
    ],
    ids=["cut weights", "no weights", "cut experiment", "other weights"],
)
def test_damaged_bundles_are_refused_with_the_reason(people_run, tmp_path, name, damage, message):
    write_bundle(people_run, tmp_path / "bundle", onnx=False)
    damage(tmp_path / "bundle" / name)
    with pytest.raises(UserError, match=message):
        load(tmp_path / "bundle")


def test_the_path_of_a_weights_file_is_reduced_to_its_name(people_run):
    experiment = override(read_experiment(people_run), ["model.pretrained=/data/me/r50.pth"])
    assert experiment.without_paths().model.pretrained == "r50.pth"


def test_bundles_of_another_model_or_other_data_are_not_replaced(people_run, patch_run, tmp_path):
    write_bundle(people_run, tmp_path / "bundle", onnx=False)
    with pytest.raises(UserError, match=r"is a bundle of other weights or data \(pcb_csa\)"):
        write_bundle(patch_run, tmp_path / "bundle", onnx=False)
    shutil.copytree(people_run, tmp_path / "run")
    environment = read_environment(people_run) | {"data": {"train": 64, "identities": 8, "digest": "other"}}
    write_text(tmp_path / "run" / ENVIRONMENT, json.dumps(environment))
    with pytest.raises(UserError, match="is a bundle of other weights or data"):
        write_bundle(tmp_path / "run", tmp_path / "bundle", onnx=False)
    assert load(tmp_path / "bundle").embed(random_inputs(load(people_run))).shape[0] == 5


@pytest.mark.parametrize("config", ["[]", "{}", "null", "not JSON", '{"library_name": "other"}'])
def test_a_folder_that_is_no_bundle_is_explained(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match="is not a bundle; write one with"):
        Bundle.from_pretrained(tmp_path)


def test_a_bundle_of_an_older_version_lacks_new_settings_and_is_the_same_model(tmp_path, people_run):
    write_bundle(people_run, tmp_path / "bundle", onnx=False)
    path = tmp_path / "bundle" / "config.json"
    config = json.loads(path.read_text())
    for group, name in (("data", "camera_pattern"), ("model", "new_heads")):
        config["experiment"][group].pop(name, None)
    path.write_text(json.dumps(config))
    write_bundle(people_run, tmp_path / "bundle", onnx=False)
