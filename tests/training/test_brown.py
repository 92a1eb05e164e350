"""Training on a small generated Brown / UBC PhotoTour dataset; losses over several processes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from csametric.data.brown import count_brown, read_brown, read_test_pairs
from csametric.errors import UserError
from csametric.evaluation.verification import fpr95, pair_distances
from csametric.files import write_text
from csametric.inference.load import load
from csametric.losses.hardnet import hardnet_loss
from csametric.models.l2net import unit_length
from csametric.recipes import find_recipe
from csametric.runs.folder import ENVIRONMENT, WEIGHTS, read_commits, read_environment, read_metrics, read_scores, read_weights
from csametric.runs.overrides import override
from csametric.training import loop
from csametric.training.checkpoint import save_checkpoint
from tests import processes
from tests.data.brown_folder import write_subset
from tests.training.gathering import example_pairs

ROOT = Path(__file__).parents[2]
SMALL = ["pairs_per_epoch=96", "epochs=2", "batch_size=16", "evaluate_every=5", "checkpoint_every=3", "optimizer.lr=1"]


@pytest.fixture(scope="module")
def brown(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("brown")
    for seed, name in enumerate(("liberty", "notredame", "yosemite")):
        write_subset(root / name, points=60, pairs=120, seed=seed)
    return root


def experiment(root: Path, *settings: str):
    return override(find_recipe("brown_hardnet_csa"), [f"data.root={root}", *SMALL, *settings])


def test_one_subset_trains_and_the_others_test(brown, tmp_path, cache):
    loop.train(experiment(brown, "data.train=notredame"), tmp_path / "run", cache)
    scores = read_scores(tmp_path / "run")["fpr95"]
    assert list(scores) == ["liberty", "yosemite"]
    settings = experiment(brown, "data.train=notredame").data
    assert read_environment(tmp_path / "run")["data"] == count_brown(settings)
    assert all(0 <= rate < 0.9 for rate in scores.values())
    assert len(read_metrics(tmp_path / "run")) == 12
    assert load(tmp_path / "run").embed(np.zeros((3, 32, 32), np.uint8)).shape == (3, 128)


def test_a_resumed_run_ends_with_the_same_weights(brown, tmp_path, cache, monkeypatch):
    settings = experiment(brown)
    loop.train(settings, tmp_path / "uninterrupted", cache)

    def save_and_interrupt(folder, step, *arguments):
        save_checkpoint(folder, step, *arguments)
        if step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", save_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.train(settings, tmp_path / "resumed", cache)
    monkeypatch.undo()
    environment = read_environment(tmp_path / "resumed") | {"commit": "abc1234"}
    write_text(tmp_path / "resumed" / ENVIRONMENT, json.dumps(environment))
    loop.train(settings, tmp_path / "resumed", cache)
    assert read_commits(tmp_path / "resumed") == ["abc1234", *read_commits(tmp_path / "uninterrupted")]
    weights, resumed = (read_weights(tmp_path / name / WEIGHTS) for name in ("uninterrupted", "resumed"))
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


def test_fpr95_equals_that_of_pairs_described_one_by_one(brown, cache):
    subset = read_brown(brown / "liberty", cache=cache)
    pairs = read_test_pairs(brown / "liberty", subset.points)

    def describe(patches):
        flat = patches.reshape(len(patches), -1)[:, ::7].astype(np.float32)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    distances = [np.linalg.norm(np.subtract(*describe(subset.patches[pair]))) for pair in pairs.patches]
    rate = fpr95(pair_distances(describe, subset.patches, pairs.patches), pairs.is_match)
    assert rate == fpr95(distances, pairs.is_match)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.root="], "set data.root to the folder"),
        (["data.root=/nowhere"], "folder /nowhere does not exist"),
        (["batch_size=64"], "60 points with two patches cannot fill a batch of 64"),
    ],
)
def test_runs_that_cannot_start_say_why(brown, tmp_path, cache, settings, message):
    with pytest.raises(UserError, match=message):
        loop.train(experiment(brown, *settings), tmp_path / "run", cache)


def test_a_single_subset_is_refused(tmp_path, cache):
    write_subset(tmp_path / "liberty", points=20, pairs=20)
    with pytest.raises(UserError, match="holds none of notredame, yosemite"):
        loop.train(experiment(tmp_path), tmp_path / "run", cache)


def test_two_processes_compute_the_loss_and_gradient_of_one(tmp_path):
    network, anchors, positives = example_pairs()
    loss = hardnet_loss(unit_length(network(anchors)), unit_length(network(positives)))
    loss.backward()
    processes.run_group(2, "tests.training.gathering", tmp_path / "gathered.pt", cwd=ROOT)
    gathered = torch.load(tmp_path / "gathered.pt", weights_only=True)
    torch.testing.assert_close(gathered["loss"], loss.detach())
    torch.testing.assert_close(gathered["gradient"], network.weight.grad)


def test_recipes_have_the_settings_of_the_papers():
    hardnet, ralnet = find_recipe("brown_hardnet_csa"), find_recipe("brown_ralnet_csa")
    assert (hardnet.batch_size, hardnet.epochs, hardnet.pairs_per_epoch, hardnet.optimizer.lr) == (1024, 10, 5_000_000, 10)
    assert (ralnet.batch_size, ralnet.loss, ralnet.data.resampling) == (512, "ral", "cubic")
    assert json.loads(json.dumps(hardnet.model.attention)) == "csa"
