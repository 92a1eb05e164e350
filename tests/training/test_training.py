"""Runs: what they write, that a kill changes nothing, what they refuse."""

import errno
import json
import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from csametric import load
from csametric.errors import UserError
from csametric.inference.patches import build_descriptor
from csametric.models.weights import read_state
from csametric.recipes import find_recipe
from csametric.runs.folder import (
    CHECKPOINT,
    keep_metrics_until,
    read_environment,
    read_experiment,
    read_metrics,
    read_scores,
    read_weights,
    save_weights,
)
from csametric.runs.overrides import override
from csametric.runs.precision import choose_precision
from csametric.training import descriptor_task, loop
from csametric.training.checkpoint import load_checkpoint, save_checkpoint
from csametric.training.memory import keep_freed_memory
from csametric.training.optimizer import descriptor_optimizer
from tests import processes
from tests.training import tiny
from tests.training.killing import kill_after

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, photo_folder, cache) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    loop.train(tiny.experiment(photo_folder), folder, cache)
    return folder


def test_a_run_folder_is_complete(finished):
    assert {path.name for path in finished.iterdir()} == {
        "experiment.json",
        "environment.json",
        "metrics.jsonl",
        "scores.json",
        "state",
        "tensorboard",
        "weights.safetensors",
    }
    rows = read_metrics(finished)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert {row["step"] for row in rows if "fpr95" in row} == {5, 10, 12}
    assert all(np.isfinite(row["loss"]) and "alpha" in row for row in rows)
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["precision"] in ("bf16", "fp32")
    assert environment["precision_reason"]
    scores = json.loads((finished / "scores.json").read_text())
    assert set(scores["levels"]) == {"easy", "hard", "tough"}
    assert list((finished / "tensorboard").iterdir())


def test_training_moves_the_attention(finished):
    assert read_metrics(finished)[-1]["alpha"] != 0


def test_a_finished_run_is_left_alone(finished, photo_folder, cache):
    before = (finished / "weights.safetensors").stat().st_mtime_ns
    loop.train(tiny.experiment(photo_folder), finished, cache)
    assert (finished / "weights.safetensors").stat().st_mtime_ns == before


def test_killed_anywhere_and_resumed_the_weights_are_bit_identical(finished, tmp_path, photo_folder, cache):
    """Five real SIGKILLs after random times, then to the end."""
    folder = tmp_path / "killed"
    draw = random.Random(0)
    program = ("tests.training.tiny", folder, photo_folder, cache)
    for kills in range(5):
        kill_after(2 + 2 * kills, folder, draw, *program)
    last = processes.run(*program, cwd=ROOT)
    assert last.returncode == 0, last.stderr
    whole, resumed = load_file(finished / "weights.safetensors"), load_file(folder / "weights.safetensors")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    losses = [[row["loss"] for row in read_metrics(each)] for each in (finished, folder)]
    assert losses[0] == losses[1]
    scores = [(each / "scores.json").read_text() for each in (finished, folder)]
    assert scores[0] == scores[1]


def test_a_torn_last_line_of_metrics_is_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n{"step": 3, "lo')
    keep_metrics_until(tmp_path, 1)
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2}]


def test_another_experiment_in_the_folder_is_refused(finished, photo_folder, cache):
    with pytest.raises(UserError, match=r"other settings \(optimizer.lr=1.0 there, 5.0 here\); choose another folder"):
        loop.train(tiny.experiment(photo_folder, "optimizer.lr=5"), finished, cache)


@pytest.mark.parametrize(
    ("setting", "mend"),
    [("batch_size=4000", "lower batch_size"), ("data.folder=nowhere", "folder nowhere does not exist")],
)
def test_a_run_that_cannot_begin_leaves_its_folder_free(tmp_path, photo_folder, cache, setting, mend):
    with pytest.raises(UserError, match=mend):
        loop.train(tiny.experiment(photo_folder, setting), tmp_path / "run", cache)
    assert not (tmp_path / "run").exists()


def test_changed_photographs_are_noticed(tmp_path, photo_folder, finished):
    own = shutil.copytree(photo_folder, tmp_path / "photos")
    folder = tmp_path / "run"
    loop.train(tiny.experiment(own, "steps=2"), folder, tmp_path / "cache")
    (own / "photo3.png").unlink()
    with pytest.raises(UserError, match=r"the images have changed since .*; restore them"):
        loop.train(tiny.experiment(own, "steps=2"), folder, tmp_path / "cache")


def test_another_number_of_processes_is_refused(tmp_path, finished, photo_folder, cache):
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "scores.json").unlink()
    environment = read_environment(folder) | {"processes": 2}
    (folder / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(UserError, match="was started with 2 processes, not 1; resume it with torchrun and 2 processes"):
        loop.train(tiny.experiment(photo_folder), folder, cache)


@pytest.mark.parametrize("name", ["experiment.json", "metrics.jsonl", "scores.json", "state/checkpoint.pt"])
def test_damaged_files_are_named(tmp_path, finished, name):
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / name).write_text("{broken\n")
    model = build_descriptor(read_experiment(finished).model)
    optimizer = descriptor_optimizer(model, read_experiment(finished).optimizer)
    readers = {
        "experiment.json": read_experiment,
        "metrics.jsonl": read_metrics,
        "scores.json": read_scores,
        "state/checkpoint.pt": lambda folder: load_checkpoint(folder, model, optimizer),
    }
    with pytest.raises(UserError, match=rf"{name} is damaged.*remove"):
        readers[name](folder)


def test_two_processes_train_and_score_once(tmp_path, photo_folder, cache):
    processes.run_group(2, "tests.training.tiny", tmp_path / "run", photo_folder, cache, "steps=3", cwd=ROOT)
    assert (tmp_path / "run" / "scores.json").is_file()
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["processes"] == 2
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2, 3]


def test_a_folder_of_other_things_is_refused(tmp_path, photo_folder, cache):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"holds files but no experiment\.json"):
        loop.train(tiny.experiment(photo_folder), tmp_path, cache)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_divergence_names_step_and_batch_and_keeps_the_checkpoint(tmp_path, photo_folder, cache, monkeypatch):
    real = descriptor_task.batch_loss
    calls = []

    def breaks_at_step_five(*arguments):
        calls.append(1)
        return real(*arguments) * (float("nan") if len(calls) == 6 else 1)

    monkeypatch.setattr(descriptor_task, "batch_loss", breaks_at_step_five)
    with pytest.raises(
        UserError, match=r"diverged at step 5: the gradient of .* \(batch of 16 keypoints .* lower optimizer.lr"
    ):
        loop.train(tiny.experiment(photo_folder), tmp_path / "run", cache)
    model = build_descriptor(tiny.experiment(photo_folder).model)
    optimizer = descriptor_optimizer(model, tiny.experiment(photo_folder).optimizer)
    assert load_checkpoint(tmp_path / "run", model, optimizer) == 4


def test_a_flipped_bit_in_a_checkpoint_is_found(tmp_path, photo_folder):
    model = build_descriptor(tiny.experiment(photo_folder).model)
    optimizer = descriptor_optimizer(model, tiny.experiment(photo_folder).optimizer)
    save_checkpoint(tmp_path, 4, model, optimizer)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    for place in np.linspace(len(whole) // 4, 3 * len(whole) // 4, 9).astype(int):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"checkpoint.pt is damaged"):
            load_checkpoint(tmp_path, model, optimizer)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1j])
def test_weights_that_are_no_finite_real_numbers_are_refused(tmp_path, value):
    tensors = {"layer.weight": torch.full((2, 2), value)}
    save_file(tensors, tmp_path / "weights.safetensors")
    torch.save(tensors, tmp_path / "weights.pth")
    words = r"is damaged \(layer.weight holds (NaN or infinite|complex) numbers\)"
    with pytest.raises(UserError, match=words):
        read_weights(tmp_path / "weights.safetensors")
    for name in ("weights.safetensors", "weights.pth"):
        with pytest.raises(UserError, match=words):
            read_state(tmp_path / name)


def test_a_full_disk_while_training_keeps_the_checkpoint(tmp_path, photo_folder, cache, monkeypatch):
    real = save_checkpoint

    def full_at_six(folder, step, *rest):
        if step == 6:
            monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        real(folder, step, *rest)

    monkeypatch.setattr(loop, "save_checkpoint", full_at_six)
    folder = tmp_path / "run"
    with pytest.raises(UserError, match="is full; free some room and give the same command again"):
        loop.train(tiny.experiment(photo_folder), folder, cache)
    monkeypatch.undo()
    model = build_descriptor(tiny.experiment(photo_folder).model)
    assert load_checkpoint(folder, model, descriptor_optimizer(model, tiny.experiment(photo_folder).optimizer)) == 4
    assert not [path for path in folder.rglob(".*") if path.is_file()]


def test_fp32_and_sa_and_ral_train_too(tmp_path, photo_folder, cache):
    experiment = override(
        find_recipe("ralnet_sa"),
        [f"data.folder={photo_folder}", *tiny.SETTINGS, "steps=2", "precision=fp32"],
    )
    loop.train(experiment, tmp_path / "run", cache)
    assert load(tmp_path / "run").embed(np.zeros((2, 32, 32), np.uint8)).shape == (2, 128)


def test_loaded_runs_embed(finished, photo_folder, cache):
    model = load(finished)
    patches = np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)
    described = model.embed(patches)
    assert (described.shape, described.dtype) == ((5, 128), torch.float32)
    torch.testing.assert_close(described.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(model.embed(torch.from_numpy(patches).unsqueeze(1)), described)
    with pytest.raises(UserError, match=r"embeds grey patches \(N, 32, 32\), got \(5, 64, 64\)"):
        model.embed(np.zeros((5, 64, 64)))


def test_loading_what_is_no_finished_run(tmp_path, finished):
    with pytest.raises(UserError, match="is not a run"):
        load(tmp_path)
    (tmp_path / "experiment.json").write_text((finished / "experiment.json").read_text())
    with pytest.raises(UserError, match="the run is not finished"):
        load(tmp_path)
    save_weights(tmp_path / "weights.safetensors", torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match="does not fit the model"):
        load(tmp_path)


def test_precision_says_why():
    cpu = torch.device("cpu")
    assert choose_precision("fp32", cpu) == ("fp32", "asked for")
    units = torch.cpu.get_capabilities()
    fast = any(units.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    assert choose_precision("auto", cpu).name == ("bf16" if fast else "fp32")
    assert "processor" in choose_precision("auto", cpu).reason
    assert choose_precision("auto", torch.device("mps")).name == "fp32"


def test_keeping_memory_reports_whether_it_can(monkeypatch):
    assert keep_freed_memory() == sys.platform.startswith("linux")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
