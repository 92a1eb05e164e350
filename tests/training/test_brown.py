"""Training on Brown / UBC PhotoTour, small and generated; losses over several processes."""

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
from tests.training.gathering import problem

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


def test_trains_on_one_and_is_tested_on_the_others(brown, tmp_path, cache):
    loop.train(experiment(brown, "data.train=notredame"), tmp_path / "run", cache)
    scores = read_scores(tmp_path / "run")["fpr95"]
    assert list(scores) == ["liberty", "yosemite"]
    settings = experiment(brown, "data.train=notredame").data
    assert read_environment(tmp_path / "run")["data"] == count_brown(settings)
    assert all(0 <= rate < 0.9 for rate in scores.values())
    assert len(read_metrics(tmp_path / "run")) == 12
    assert load(tmp_path / "run").embed(np.zeros((3, 32, 32), np.uint8)).shape == (3, 128)


def test_a_run_stopped_and_taken_up_again_ends_with_the_same_weights(brown, tmp_path, cache, monkeypatch):
    whole = experiment(brown)
    loop.train(whole, tmp_path / "whole", cache)
    real = save_checkpoint

    def killed(folder, step, *rest):
        real(folder, step, *rest)
        if step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        loop.train(whole, tmp_path / "halved", cache)
    monkeypatch.undo()
    earlier = read_environment(tmp_path / "halved") | {"commit": "abc1234"}
    write_text(tmp_path / "halved" / ENVIRONMENT, json.dumps(earlier))
    loop.train(whole, tmp_path / "halved", cache)
    assert read_commits(tmp_path / "halved") == ["abc1234", *read_commits(tmp_path / "whole")]
    one, other = (read_weights(tmp_path / name / WEIGHTS) for name in ("whole", "halved"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_rate_is_that_of_the_pairs_one_by_one(brown, cache):
    subset = read_brown(brown / "liberty", cache=cache)
    pairs = read_test_pairs(brown / "liberty", subset.points)

    def describe(patches):
        flat = patches.reshape(len(patches), -1)[:, ::7].astype(np.float32)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    distances = [np.linalg.norm(np.subtract(*describe(subset.patches[pair]))) for pair in pairs.patches]
    found = fpr95(pair_distances(describe, subset.patches, pairs.patches), pairs.is_match)
    assert found == fpr95(distances, pairs.is_match)


@pytest.mark.parametrize(
    ("settings", "mend"),
    [
        (["data.root="], "set data.root to the folder"),
        (["data.root=/nowhere"], "folder /nowhere does not exist"),
        (["batch_size=64"], "60 points with two patches cannot fill a batch of 64"),
    ],
)
def test_what_cannot_begin_says_why(brown, tmp_path, cache, settings, mend):
    with pytest.raises(UserError, match=mend):
        loop.train(experiment(brown, *settings), tmp_path / "run", cache)


def test_a_subset_alone_has_nothing_to_test_on(tmp_path, cache):
    write_subset(tmp_path / "liberty", points=20, pairs=20)
    with pytest.raises(UserError, match="holds none of notredame, yosemite"):
        loop.train(experiment(tmp_path), tmp_path / "run", cache)


def test_two_processes_have_the_loss_and_the_gradient_of_one(tmp_path):
    network, anchors, positives = problem()
    loss = hardnet_loss(unit_length(network(anchors)), unit_length(network(positives)))
    loss.backward()
    processes.run_group(2, "tests.training.gathering", tmp_path / "two.pt", cwd=ROOT)
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    torch.testing.assert_close(two["loss"], loss.detach())
    torch.testing.assert_close(two["gradient"], network.weight.grad)


def test_the_paper_s_settings_are_the_recipes():
    hardnet, ralnet = find_recipe("brown_hardnet_csa"), find_recipe("brown_ralnet_csa")
    assert (hardnet.batch_size, hardnet.epochs, hardnet.pairs_per_epoch, hardnet.optimizer.lr) == (1024, 10, 5_000_000, 10)
    assert (ralnet.batch_size, ralnet.loss, ralnet.data.resampling) == (512, "ral", "cubic")
    assert json.loads(json.dumps(hardnet.model.attention)) == "csa"
