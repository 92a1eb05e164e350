"""Re-identification runs: accuracy on every layout, resuming after a kill, phases, processes, and what they refuse."""

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
def test_every_layout_trains_to_90_per_cent_rank_1(tmp_path, layout):
    kind, write = people.LAYOUTS[layout]
    loop.train(tiny_reid.experiment(kind, write(tmp_path / "set")), tmp_path / "run")
    scores = read_scores(tmp_path / "run")
    assert scores["rank1"] >= 0.9
    assert scores["queries"] == 16
    assert scores["queries_without_match"] == []
    assert 0 < scores["minp"] <= scores["map_step"] <= 1


def test_a_run_records_its_data_and_alphas(finished):
    environment = read_environment(finished)
    assert environment["data"].items() >= {"train": 64, "identities": 8}.items()
    rows = read_metrics(finished)
    assert {"loss", "alpha1", "alpha2", "alpha3", "images_per_second"} <= set(rows[0])
    assert rows[-1]["loss"] < rows[0]["loss"]
    ranked_lists = read_scores(finished)["ranked"]
    assert len(ranked_lists) == 8
    assert all(len(ranked["gallery"]) == 10 for ranked in ranked_lists)
    assert all(len(ranked["right"]) == 10 for ranked in ranked_lists)


def test_a_killed_run_resumes_to_bit_identical_weights(finished, tmp_path, market):
    folder, delays = tmp_path / "killed", random.Random(0)
    program = ("tests.training.tiny_reid", folder, "market1501", market)
    for steps in (3, 9):
        kill_after(steps, folder, delays, *program)
    done = processes.run(*program, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    weights, resumed = load_file(finished / "weights.safetensors"), load_file(folder / "weights.safetensors")
    assert weights.keys() == resumed.keys()
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


def test_two_processes_score_like_one(tmp_path, market):
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


def test_two_processes_refine_and_score_with_the_same_statistics(tmp_path, market):
    """Embedding in batches of seven, so that both processes embed; freezing and unused parameters under torchrun."""
    folder = tmp_path / "run"
    words = [folder, "market1501", market, "batch_size=8", "epochs=3"]
    words += ["model.refined=true", "refine_from=1", "freeze_epochs=1", "model.attention=sa"]
    processes.run_group(2, "tests.training.tiny_reid", "--embed-batch", "7", *words, cwd=ROOT)
    features = np.load(folder / "features.npy")
    expected = load(folder).embed([record.path for record in read_dataset("market1501", market).gallery])
    torch.testing.assert_close(torch.from_numpy(features), expected, rtol=1e-4, atol=1e-5)


def test_refinement_starts_at_its_epoch(tmp_path, market):
    settings = ["model.refined=true", "refine_from=1", "freeze_epochs=1", "epochs=3", "model.attention=none"]
    experiment = tiny_reid.experiment("market1501", market, *settings)
    task = loop.open_task(experiment, join_processes("fp32"))
    model = task.build_model()
    optimizer = task.build_optimizer(model)
    phases = []  # whether the model refines, and whether its backbone trains
    for step in range(task.steps):
        task.begin_step(model, optimizer, step)
        phases.append((model.refining, next(model.backbone.parameters()).requires_grad))
    steps = task.steps_per_epoch
    assert phases == [(False, True)] * steps + [(True, False)] * steps + [(True, True)] * steps
    loop.train(experiment, tmp_path / "run")
    assert load(tmp_path / "run").model.refining


def test_a_refined_run_can_start_from_a_trained_pcb(tmp_path, market, finished):
    settings = ["model.refined=true", f"model.start_from={finished}", "refine_from=0", "epochs=1"]
    experiment = tiny_reid.experiment("market1501", market, *settings)
    model = build_pcb(experiment.model, 8)
    weights = load_file(finished / "weights.safetensors")
    assert torch.equal(model.classifiers[0].weight, weights["classifiers.0.weight"])
    assert model.refinement is not None
    with pytest.raises(UserError, match=r"classifiers.0.bias \(8,\) instead of \(5,\)"):
        build_pcb(experiment.model, 5)


def test_other_identities_can_start_from_the_backbone_with_new_heads(tmp_path, market, finished):
    settings = [f"model.start_from={finished}", "model.new_heads=true", "epochs=1"]
    experiment = tiny_reid.experiment("market1501", market, *settings)
    model, weights = build_pcb(experiment.model, 5), load_file(finished / "weights.safetensors")
    own = model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in weights.items() if name.startswith("backbone."))
    assert own["classifiers.0.weight"].shape[0] == 5
    assert not torch.equal(own["embeddings.0.0.weight"], weights["embeddings.0.0.weight"])
    task = loop.open_task(experiment, join_processes("fp32"))
    assert "the backbone and its attention; the heads start at random" in task.announcement()
    with pytest.raises(UserError, match=r"model.new_heads needs model.start_from"):
        tiny_reid.experiment("market1501", market, "model.new_heads=true")


def test_only_the_part_classifier_trains_while_the_rest_is_frozen(market):
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
    for images, message in (
        (arrays[..., :1], r"must be RGB, \(N, H, W, 3\) or \(N, 3, H, W\), got"),
        (tensors.float(), r"must lie in \[0, 1\], got .*; the model normalises them itself"),
        (arrays.astype(int), "got int64; convert them"),
        ([], "need at least 1 image to embed, got 0"),
        ([np.zeros((9, 8, 3), np.uint8), np.zeros((9, 9, 3), np.uint8)], "must share one shape; pass paths"),
    ):
        with pytest.raises(UserError, match=message):
            model.embed(images)


def test_features_keep_the_order_of_the_records(finished, market):
    model = load(finished)
    records = read_dataset("market1501", market).gallery
    features = embed_records(model.scoring_engine, records, 48, 16, join_processes("fp32"))
    assert features.shape == (50, model.model.dimensions)
    torch.testing.assert_close(torch.from_numpy(features[-1:]), model.embed([records[-1].path]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.backbone=resnet51"], "unknown timm model"),
        (["model.stages=1,4"], "unknown stage 4"),
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
def test_impossible_settings_are_refused(tmp_path, market, settings, message):
    with pytest.raises(UserError, match=message):
        loop.train(tiny_reid.experiment("market1501", market, *settings), tmp_path / "run")


@pytest.mark.parametrize("split", ["bounding_box_train", "bounding_box_test"])
def test_broken_images_are_named_before_the_first_step(tmp_path, market, split):
    copy, folder = shutil.copytree(market, tmp_path / "market"), tmp_path / "run"
    experiment = tiny_reid.experiment("market1501", copy, "epochs=1")
    broken = sorted((copy / split).iterdir())[5:7]
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


def test_an_image_that_breaks_during_training_keeps_the_trained_weights(tmp_path, market):
    copy, folder = shutil.copytree(market, tmp_path / "market"), tmp_path / "run"
    experiment = tiny_reid.experiment("market1501", copy, "epochs=1")
    loop.train(experiment, folder)
    weights = (folder / "weights.safetensors").read_bytes()
    (folder / "scores.json").unlink()
    broken = sorted((copy / "bounding_box_test").iterdir())[5]
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(UserError, match="is not a whole image"):
        loop.train(experiment, folder)
    broken.unlink()
    loop.train(experiment, folder)
    assert (folder / "weights.safetensors").read_bytes() == weights
    assert (folder / "scores.json").is_file()


def test_changed_training_images_are_refused(tmp_path, market):
    copy, folder = shutil.copytree(market, tmp_path / "market"), tmp_path / "run"
    loop.train(tiny_reid.experiment("market1501", copy, "epochs=1"), folder)
    image = copy / "bounding_box_train" / "0001_c1s1_000000_00.png"
    image.rename(image.with_name("0002_c1s1_000077_00.png"))
    with pytest.raises(UserError, match="the images have changed"):
        loop.train(tiny_reid.experiment("market1501", copy, "epochs=1"), folder)


def test_queries_without_any_match_are_refused_before_training(tmp_path):
    root = people.write_market(tmp_path / "market")
    for image in (root / "bounding_box_test").glob("*_c2s1_*"):
        image.unlink()
    for image in (root / "query").glob("*_c2s1_*"):
        image.unlink()
    people.person(99, 2, 0).save(root / "bounding_box_test" / "0000_c2s1_000001_00.png")
    with pytest.raises(UserError, match=r"no query has a match in the gallery; .*set data.camera_filter=false"):
        loop.train(tiny_reid.experiment("market1501", root), tmp_path / "run")
    loop.train(tiny_reid.experiment("market1501", root, "data.camera_filter=false", "epochs=1"), tmp_path / "run")
    assert read_scores(tmp_path / "run")["camera_filter"] is False


def test_refinement_without_a_trained_pcb_is_announced(market):
    experiment = tiny_reid.experiment("market1501", market, "model.refined=true", "refine_from=0")
    assert "known to collapse" in loop.open_task(experiment, join_processes("fp32")).announcement()


def test_missing_weights_files_are_named(tmp_path, market):
    with pytest.raises(UserError, match=r"nowhere.pth does not exist"):
        loop.train(tiny_reid.experiment("market1501", market, f"model.pretrained={tmp_path}/nowhere.pth"), tmp_path / "run")


def test_recipes_have_the_settings_of_the_paper():
    pcb, csa = find_recipe("pcb"), find_recipe("pcb_csa")
    assert (pcb.epochs, pcb.batch_size, pcb.optimizer.lr, pcb.optimizer.backbone_lr) == (100, 64, 0.1, 0.01)
    assert (pcb.optimizer.weight_decay, pcb.optimizer.decay_every, pcb.optimizer.nesterov) == (1e-4, 40, False)
    assert (pcb.data.height, pcb.data.width, pcb.data.flip, pcb.data.erasing) == (384, 128, 0.5, 0)
    assert (pcb.model.attention, pcb.model.deep_supervision) == ("none", False)
    assert (csa.model.attention, csa.model.maps, csa.model.groups, csa.model.stages) == ("csa", 32, 2, (1, 2, 3))
    assert csa.loss.supervision == 1
    assert find_recipe("rpp_csa").refine_from == 40


def test_settings_survive_overrides_and_json():
    changed = override(find_recipe("pcb_csa"), ["model.stages=2,3", "model.refined=True", "model.alpha=0.5"])
    assert (changed.model.stages, changed.model.refined, changed.model.alpha) == ((2, 3), True, 0.5)
    assert from_json(json.dumps(json.loads(loop.to_json(changed)))) == changed


def test_logging_the_attention_does_not_change_the_weights(finished, tmp_path, market):
    loop.train(tiny_reid.experiment("market1501", market, "attention_every=5"), tmp_path / "run")
    weights, logged = (load_file(folder / "weights.safetensors") for folder in (finished, tmp_path / "run"))
    assert all(torch.equal(weights[name], logged[name]) for name in weights)
    rows = read_metrics(tmp_path / "run")
    snapshots = [row for row in rows if "attention1_entropy" in row]
    assert [row["step"] for row in snapshots] == [*range(5, len(rows), 5), len(rows)]
    last = snapshots[-1]
    assert all(0 < last[f"attention{number}_entropy"] <= 1 for number in (1, 2, 3))
    assert all(1 <= last[f"attention{number}_used_maps"] <= 4 for number in (1, 2, 3))
    assert "attention1_overlap" not in rows[0]
