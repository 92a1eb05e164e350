"""Re-identification runs: every layout to a stated accuracy, kills, phases, processes, and what they refuse."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from csametric import load
from csametric.data.datasets import read_dataset
from csametric.errors import UserError
from csametric.inference.images import build_pcb
from csametric.recipes import find_recipe
from csametric.runs.folder import from_json, read_environment, read_metrics, read_scores
from csametric.runs.overrides import override
from csametric.training import loop
from csametric.training.machine import join_processes
from csametric.training.reid_scoring import embed_records
from csametric.training.reid_task import train_only_parts
from tests import processes
from tests.data import people
from tests.training import tiny_reid
from tests.training.killing import kill_after

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> Path:
    return people.write_market(tmp_path_factory.mktemp("data") / "market")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, market) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    loop.train(tiny_reid.experiment("market1501", market), folder)
    return folder


@pytest.mark.parametrize("layout", people.LAYOUTS)
def test_every_layout_trains_to_rank_one_of_nine_tenths(tmp_path, layout):
    kind, write = people.LAYOUTS[layout]
    loop.train(tiny_reid.experiment(kind, write(tmp_path / "set")), tmp_path / "run")
    scores = read_scores(tmp_path / "run")
    assert scores["rank1"] >= 0.9
    assert scores["queries"] == 16
    assert scores["queries_without_match"] == []
    assert 0 < scores["minp"] <= scores["map_step"] <= 1


def test_the_run_tells_its_data_and_alphas(finished):
    environment = read_environment(finished)
    assert environment["data"].items() >= {"train": 64, "identities": 8}.items()
    rows = read_metrics(finished)
    assert {"loss", "alpha1", "alpha2", "alpha3", "images_per_second"} <= set(rows[0])
    assert rows[-1]["loss"] < rows[0]["loss"]
    lists = read_scores(finished)["ranked"]
    assert len(lists) == 8
    assert all(len(each["gallery"]) == len(each["right"]) == 10 for each in lists)


def test_killed_and_resumed_the_weights_are_bit_identical(finished, tmp_path, market):
    folder, draw = tmp_path / "killed", random.Random(0)
    program = ("tests.training.tiny_reid", folder, "market1501", market)
    for steps in (3, 9):
        kill_after(steps, folder, draw, *program)
    done = processes.run(*program, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    whole, resumed = load_file(finished / "weights.safetensors"), load_file(folder / "weights.safetensors")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_two_processes_train_and_score_as_one_would(tmp_path, market):
    folder = tmp_path / "run"
    words = [folder, "market1501", market, "batch_size=8", "epochs=2"]
    processes.run_group(2, "tests.training.tiny_reid", *words, cwd=ROOT)
    scores = read_scores(folder)
    model = load(folder)
    dataset = read_dataset("market1501", market)
    features = [model.embed([record.path for record in split]) for split in (dataset.query, dataset.gallery)]
    from csametric import evaluate_reid

    labels = [([r.identity for r in split], [r.camera for r in split]) for split in (dataset.query, dataset.gallery)]
    metrics = evaluate_reid(features[0], *labels[0], features[1], *labels[1])
    assert (scores["rank1"], scores["map_step"]) == (metrics.rank(1), metrics.map_step)


def test_two_processes_refine_and_share_their_statistics(tmp_path, market):
    """Batches of seven, so that both processes embed; freezing and unused parameters under DistributedDataParallel."""
    folder = tmp_path / "run"
    words = [folder, "market1501", market, "batch_size=8", "epochs=3"]
    words += ["model.refined=true", "refine_from=1", "freeze_epochs=1", "model.attention=sa"]
    processes.run_group(2, "tests.training.tiny_reid", "--embed-batch", "7", *words, cwd=ROOT)
    features = np.load(folder / "features.npy")
    alone = load(folder).embed([record.path for record in read_dataset("market1501", market).gallery])
    torch.testing.assert_close(torch.from_numpy(features), alone, rtol=1e-4, atol=1e-5)


def test_refined_parts_begin_at_their_epoch(tmp_path, market):
    settings = ["model.refined=true", "refine_from=1", "freeze_epochs=1", "epochs=3", "model.attention=none"]
    experiment = tiny_reid.experiment("market1501", market, *settings)
    task = loop.open_task(experiment, join_processes("fp32"))
    model = task.build_model()
    optimizer = task.build_optimizer(model)
    seen = []
    for step in range(task.steps):
        task.begin_step(model, optimizer, step)
        seen.append((model.refining, next(model.backbone.parameters()).requires_grad))
    each = task.steps_per_epoch
    assert seen == [(False, True)] * each + [(True, False)] * each + [(True, True)] * each
    loop.train(experiment, tmp_path / "run")
    assert load(tmp_path / "run").model.refining


def test_a_refined_run_begins_with_a_trained_pcb(tmp_path, market, finished):
    settings = ["model.refined=true", f"model.start_from={finished}", "refine_from=0", "epochs=1"]
    experiment = tiny_reid.experiment("market1501", market, *settings)
    model = build_pcb(experiment.model, 8)
    weights = load_file(finished / "weights.safetensors")
    assert torch.equal(model.classifiers[0].weight, weights["classifiers.0.weight"])
    assert model.refinement is not None
    with pytest.raises(UserError, match=r"classifiers.0.bias \(8,\) instead of \(5,\)"):
        build_pcb(experiment.model, 5)


def test_freezing_leaves_the_part_classifier(market):
    model = build_pcb(tiny_reid.experiment("market1501", market, "model.refined=true", "refine_from=1").model, 8)
    train_only_parts(model, True)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"refinement.assign.weight"}
    train_only_parts(model, False)
    assert all(p.requires_grad for p in model.parameters())


def test_triplets_label_smoothing_and_erasing_train(tmp_path, market):
    settings = ["data.images_per_identity=4", "loss.triplet=1", "loss.label_smoothing=0.1", "data.erasing=0.5", "data.pad=4"]
    schedule = [
        "optimizer.schedule=cosine",
        "optimizer.warmup_epochs=0.5",
        "epochs=2",
        "model.feature=embedded",
        "evaluate_every=1",
    ]
    loop.train(tiny_reid.experiment("market1501", market, *settings, *schedule), tmp_path / "run")
    evaluated = [row["step"] for row in read_metrics(tmp_path / "run") if "rank1" in row]
    assert evaluated == [4, 8]
    assert load(tmp_path / "run").embed(np.zeros((1, 48, 16, 3), np.uint8)).shape == (1, 3 * 32)


def test_embedding_takes_files_arrays_and_tensors(finished, market):
    model = load(finished)
    records = read_dataset("market1501", market).query[:3]
    files = model.embed([record.path for record in records])
    arrays = np.stack([np.asarray(Image.open(record.path)) for record in records])
    torch.testing.assert_close(model.embed(arrays), files)
    tensors = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    torch.testing.assert_close(model.embed(tensors), files)
    torch.testing.assert_close(model.embed(tensors / 255), files)
    assert model.embed([str(records[0].path)]).dtype == torch.float32
    assert not torch.equal(model.embed(arrays, flip=True), files)
    for wrong, words in (
        (arrays[..., :1], r"RGB images \(N, H, W, 3\) or \(N, 3, H, W\), got"),
        (tensors.float(), r"must lie in \[0, 1\]; do not normalise"),
        (arrays.astype(int), "not int64; convert them"),
        ([], "no images to embed"),
        ([np.zeros((9, 8, 3), np.uint8), np.zeros((9, 9, 3), np.uint8)], "differ in shape; give paths"),
    ):
        with pytest.raises(UserError, match=words):
            model.embed(wrong)


def test_features_of_all_records_come_in_their_order(finished, market):
    model = load(finished)
    records = read_dataset("market1501", market).gallery
    together = embed_records(model.model, records, 48, 16, join_processes("fp32"))
    assert together.shape == (50, model.model.dimensions)
    torch.testing.assert_close(torch.from_numpy(together[-1:]), model.embed([records[-1].path]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.backbone=resnet51"], "timm has no network"),
        (["model.stages=1,4"], "no stage 4"),
        (["data.height=64"], r"data.height must be a multiple of 48 \(16 x 3 parts\), got 64; use data.height=48"),
        (["batch_size=100"], "64 training images cannot fill a batch of 100"),
        (["data.images_per_identity=5"], "must be a multiple of images_per_identity=5"),
        (["loss.triplet=1"], "set data.images_per_identity=4"),
        (["model.stages=1,1"], "model.stages must be different stages"),
        (["data.erasing=2"], "data.erasing must be a probability in .0, 1., got 2.0"),
        (["optimizer.decay_every=0"], "optimizer.decay_every must be the number of epochs between decays, got 0"),
        (["model.refined=true"], "refine_from must be less than epochs=8, got 40"),
        (
            ["loss.triplet=1", "data.images_per_identity=16"],
            "needs two identities per batch; use at least batch_size=32, got 16",
        ),
        (["model.refined=maybe"], "model.refined must be true or false, got maybe"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, market, settings, words):
    with pytest.raises(UserError, match=words):
        loop.train(tiny_reid.experiment("market1501", market, *settings), tmp_path / "run")


@pytest.mark.parametrize("split", ["bounding_box_train", "bounding_box_test"])
def test_broken_images_are_named_before_the_first_step_and_may_be_removed(tmp_path, market, split):
    own, folder = shutil.copytree(market, tmp_path / "market"), tmp_path / "run"
    experiment = tiny_reid.experiment("market1501", own, "epochs=1")
    broken = sorted((own / split).iterdir())[5:7]
    for path in broken:
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(
        UserError, match=rf"{broken[0].name} is not a whole image.*and 1 more: csametric data check market1501:"
    ):
        loop.train(experiment, folder)
    assert not (folder / "metrics.jsonl").exists()
    for path in broken:
        path.unlink()
    loop.train(experiment, folder)
    assert (folder / "scores.json").is_file()


def test_an_image_that_breaks_during_training_costs_none_of_it(tmp_path, market):
    own, folder = shutil.copytree(market, tmp_path / "market"), tmp_path / "run"
    experiment = tiny_reid.experiment("market1501", own, "epochs=1")
    loop.train(experiment, folder)
    weights = (folder / "weights.safetensors").read_bytes()
    (folder / "scores.json").unlink()
    broken = sorted((own / "bounding_box_test").iterdir())[5]
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(UserError, match="is not a whole image"):
        loop.train(experiment, folder)
    broken.unlink()
    loop.train(experiment, folder)
    assert (folder / "weights.safetensors").read_bytes() == weights
    assert (folder / "scores.json").is_file()


def test_changed_training_images_are_noticed(tmp_path, market):
    own, folder = shutil.copytree(market, tmp_path / "market"), tmp_path / "run"
    loop.train(tiny_reid.experiment("market1501", own, "epochs=1"), folder)
    moved = own / "bounding_box_train" / "0001_c1s1_000000_00.png"
    moved.rename(moved.with_name("0002_c1s1_000077_00.png"))
    with pytest.raises(UserError, match="the images have changed"):
        loop.train(tiny_reid.experiment("market1501", own, "epochs=1"), folder)


def test_people_of_one_camera_are_refused_before_training(tmp_path):
    root = people.write_market(tmp_path / "market")
    for image in (root / "bounding_box_test").glob("*_c2s1_*"):
        image.unlink()
    for image in (root / "query").glob("*_c2s1_*"):
        image.unlink()
    people.person(99, 2, 0).save(root / "bounding_box_test" / "0000_c2s1_000001_00.png")
    with pytest.raises(UserError, match=r"no query has a match in the gallery; .*camera_filter=false"):
        loop.train(tiny_reid.experiment("market1501", root), tmp_path / "run")
    loop.train(tiny_reid.experiment("market1501", root, "data.camera_filter=false", "epochs=1"), tmp_path / "run")
    assert read_scores(tmp_path / "run")["camera_filter"] is False


def test_a_cold_start_of_refined_parts_is_announced(market):
    experiment = tiny_reid.experiment("market1501", market, "model.refined=true", "refine_from=0")
    assert "known to collapse" in loop.open_task(experiment, join_processes("fp32")).announce()


def test_missing_weights_are_named(tmp_path, market):
    with pytest.raises(UserError, match=r"there is no file .*nowhere.pth"):
        loop.train(tiny_reid.experiment("market1501", market, f"model.pretrained={tmp_path}/nowhere.pth"), tmp_path / "run")


def test_every_recipe_of_the_paper_has_its_settings():
    pcb, csa = find_recipe("pcb"), find_recipe("pcb_csa")
    assert (pcb.epochs, pcb.batch_size, pcb.optimizer.lr, pcb.optimizer.backbone_lr) == (100, 64, 0.1, 0.01)
    assert (pcb.optimizer.weight_decay, pcb.optimizer.decay_every, pcb.optimizer.nesterov) == (1e-4, 40, False)
    assert (pcb.data.height, pcb.data.width, pcb.data.flip, pcb.data.erasing) == (384, 128, 0.5, 0)
    assert (pcb.model.attention, pcb.model.deep_supervision) == ("none", False)
    assert (csa.model.attention, csa.model.maps, csa.model.groups, csa.model.stages) == ("csa", 32, 2, (1, 2, 3))
    assert csa.loss.supervision == 1
    assert find_recipe("rpp_csa").refine_from == 40


def test_settings_travel_through_json_and_words():
    changed = override(find_recipe("pcb_csa"), ["model.stages=2,3", "model.refined=True", "model.alpha=0.5"])
    assert (changed.model.stages, changed.model.refined, changed.model.alpha) == ((2, 3), True, 0.5)
    assert from_json(json.dumps(json.loads(loop.to_json(changed)))) == changed


def test_looking_at_the_attention_changes_nothing_and_is_logged(finished, tmp_path, market):
    loop.train(tiny_reid.experiment("market1501", market, "attention_every=5"), tmp_path / "run")
    plain, seen = (load_file(folder / "weights.safetensors") for folder in (finished, tmp_path / "run"))
    assert all(torch.equal(plain[name], seen[name]) for name in plain)
    rows = read_metrics(tmp_path / "run")
    looked = [row for row in rows if "attention1_entropy" in row]
    assert [row["step"] for row in looked] == [*range(5, len(rows), 5), len(rows)]
    last = looked[-1]
    assert all(0 < last[f"attention{number}_entropy"] <= 1 for number in (1, 2, 3))
    assert all(1 <= last[f"attention{number}_used_maps"] <= 4 for number in (1, 2, 3))
    assert "attention1_overlap" not in rows[0]
