"""Descriptor runs: their files, resuming after a kill, and what they refuse."""

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


def test_a_finished_run_has_all_its_files(finished):
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


def test_training_changes_alpha(finished):
    assert read_metrics(finished)[-1]["alpha"] != 0


def test_a_finished_run_is_not_trained_again(finished, photo_folder, cache):
    before = (finished / "weights.safetensors").stat().st_mtime_ns
    loop.train(tiny.experiment(photo_folder), finished, cache)
    assert (finished / "weights.safetensors").stat().st_mtime_ns == before


def test_a_run_killed_anywhere_resumes_to_bit_identical_weights(finished, tmp_path, photo_folder, cache):
    """Five SIGKILLs at random moments, then a run to the end."""
    folder = tmp_path / "killed"
    delays = random.Random(0)
    program = ("tests.training.tiny", folder, photo_folder, cache)
    for kills in range(5):
        kill_after(2 + 2 * kills, folder, delays, *program)
    last = processes.run(*program, cwd=ROOT)
    assert last.returncode == 0, last.stderr
    weights, resumed = load_file(finished / "weights.safetensors"), load_file(folder / "weights.safetensors")
    assert weights.keys() == resumed.keys()
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    losses, resumed_losses = ([row["loss"] for row in read_metrics(run_folder)] for run_folder in (finished, folder))
    assert losses == resumed_losses
    assert (finished / "scores.json").read_text() == (folder / "scores.json").read_text()


def test_an_incomplete_last_line_of_metrics_is_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n{"step": 3, "lo')
    keep_metrics_until(tmp_path, 1)
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2}]


def test_a_folder_of_another_experiment_is_refused(finished, photo_folder, cache):
    with pytest.raises(UserError, match=r"other settings \(optimizer.lr=1.0 there, 5.0 here\); choose another folder"):
        loop.train(tiny.experiment(photo_folder, "optimizer.lr=5"), finished, cache)


@pytest.mark.parametrize(
    ("setting", "message"),
    [("batch_size=4000", "lower batch_size"), ("data.folder=nowhere", "folder nowhere does not exist")],
)
def test_a_run_that_cannot_start_creates_no_folder(tmp_path, photo_folder, cache, setting, message):
    with pytest.raises(UserError, match=message):
        loop.train(tiny.experiment(photo_folder, setting), tmp_path / "run", cache)
    assert not (tmp_path / "run").exists()


def test_changed_photographs_are_refused(tmp_path, photo_folder, finished):
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
def test_errors_name_the_damaged_file(tmp_path, finished, name):
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


def test_a_folder_with_other_files_is_refused(tmp_path, photo_folder, cache):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"holds files but no experiment\.json"):
        loop.train(tiny.experiment(photo_folder), tmp_path, cache)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_divergence_names_step_and_batch_and_keeps_the_checkpoint(tmp_path, photo_folder, cache, monkeypatch):
    batch_loss = descriptor_task.batch_loss
    calls = []

    def diverge_at_step_five(*arguments):
        calls.append(1)
        return batch_loss(*arguments) * (float("nan") if len(calls) == 6 else 1)

    monkeypatch.setattr(descriptor_task, "batch_loss", diverge_at_step_five)
    with pytest.raises(
        UserError, match=r"diverged at step 5: the gradient of .* \(batch of 16 keypoints .* lower optimizer.lr"
    ):
        loop.train(tiny.experiment(photo_folder), tmp_path / "run", cache)
    model = build_descriptor(tiny.experiment(photo_folder).model)
    optimizer = descriptor_optimizer(model, tiny.experiment(photo_folder).optimizer)
    assert load_checkpoint(tmp_path / "run", model, optimizer) == 4


def test_flipped_bits_in_a_checkpoint_are_detected(tmp_path, photo_folder):
    model = build_descriptor(tiny.experiment(photo_folder).model)
    optimizer = descriptor_optimizer(model, tiny.experiment(photo_folder).optimizer)
    save_checkpoint(tmp_path, 4, model, optimizer)
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    for index in np.linspace(len(content) // 4, 3 * len(content) // 4, 9).astype(int):
        path.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
        with pytest.raises(UserError, match=r"checkpoint.pt is damaged"):
            load_checkpoint(tmp_path, model, optimizer)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1j])
def test_weights_with_nan_infinite_or_complex_numbers_are_refused(tmp_path, value):
    tensors = {"layer.weight": torch.full((2, 2), value)}
    save_file(tensors, tmp_path / "weights.safetensors")
    torch.save(tensors, tmp_path / "weights.pth")
    message = r"is damaged \(layer.weight contains (NaN or infinite|complex) numbers\)"
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / "weights.safetensors")
    for name in ("weights.safetensors", "weights.pth"):
        with pytest.raises(UserError, match=message):
            read_state(tmp_path / name)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, photo_folder, cache, monkeypatch):
    def save_to_full_disk(folder, step, *arguments):
        if step == 6:
            monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        save_checkpoint(folder, step, *arguments)

    monkeypatch.setattr(loop, "save_checkpoint", save_to_full_disk)
    folder = tmp_path / "run"
    with pytest.raises(UserError, match="is full; free some space and train into the folder again"):
        loop.train(tiny.experiment(photo_folder), folder, cache)
    monkeypatch.undo()
    model = build_descriptor(tiny.experiment(photo_folder).model)
    assert load_checkpoint(folder, model, descriptor_optimizer(model, tiny.experiment(photo_folder).optimizer)) == 4
    assert not [path for path in folder.rglob(".*") if path.is_file()]


def test_self_attention_trains_with_ral_loss_in_fp32(tmp_path, photo_folder, cache):
    experiment = override(
        find_recipe("ralnet_sa"),
        [f"data.folder={photo_folder}", *tiny.SETTINGS, "steps=2", "precision=fp32"],
    )
    loop.train(experiment, tmp_path / "run", cache)
    assert load(tmp_path / "run").embed(np.zeros((2, 32, 32), np.uint8)).shape == (2, 128)


def test_loaded_runs_embed_patches(finished, photo_folder, cache):
    model = load(finished)
    patches = np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)
    descriptors = model.embed(patches)
    assert (descriptors.shape, descriptors.dtype) == ((5, 128), torch.float32)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(model.embed(torch.from_numpy(patches).unsqueeze(1)), descriptors)
    with pytest.raises(UserError, match=r"must be grey, \(N, 32, 32\), got \(5, 64, 64\)"):
        model.embed(np.zeros((5, 64, 64)))


def test_folders_without_a_finished_run_do_not_load(tmp_path, finished):
    with pytest.raises(UserError, match="is not a run"):
        load(tmp_path)
    (tmp_path / "experiment.json").write_text((finished / "experiment.json").read_text())
    with pytest.raises(UserError, match="the run is not finished"):
        load(tmp_path)
    save_weights(tmp_path / "weights.safetensors", torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match="does not fit the model"):
        load(tmp_path)


def test_precision_states_its_reason():
    cpu = torch.device("cpu")
    assert choose_precision("fp32", cpu) == ("fp32", "from the settings")
    capabilities = torch.cpu.get_capabilities()
    has_fast_bf16 = any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    assert choose_precision("auto", cpu).name == ("bf16" if has_fast_bf16 else "fp32")
    assert "processor" in choose_precision("auto", cpu).reason
    assert choose_precision("auto", torch.device("mps")).name == "fp32"


def test_keeping_freed_memory_reports_success(monkeypatch):
    assert keep_freed_memory() == sys.platform.startswith("linux")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
