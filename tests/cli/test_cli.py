"""The command as a user calls it: what it prints, its exit status, no traceback."""

import shutil
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from csametric.cli.app import COMMANDS, load_command
from tests import processes
from tests.training import tiny

SMALL = [argument for setting in tiny.SETTINGS for argument in ("--set", setting)]


def csametric(*arguments: str | Path, cwd: Path, cache: Path) -> "CompletedProcess[str]":
    """Run the command in a process of its own."""
    return processes.run("csametric", *arguments, cwd=cwd, env={"CSAMETRIC_CACHE": str(cache)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory, photo_folder, cache) -> tuple[Path, "CompletedProcess[str]"]:
    folder = tmp_path_factory.mktemp("work")
    photos = shutil.copytree(photo_folder, folder / "photos")
    (photos / "broken.jpg").write_text("no image")
    done = csametric("train", "hardnet_csa", "--data", "photos:photos", "--name", "mine", *SMALL, cwd=folder, cache=cache)
    return folder, done


def test_train_on_a_folder_of_photographs(trained):
    folder, done = trained
    assert done.returncode == 0, done.stderr
    assert "open runs/mine/report.html" in done.stdout
    assert "RootSIFT" in done.stdout
    assert "1 skipped (broken.jpg: is not a BMP, GIF, JPEG" in done.stdout
    assert "arithmetic: " in done.stdout
    report = (folder / "runs" / "mine" / "report.html").read_text()
    for text in ("How good are the descriptors?", "What hardnet_csa looks at", "broken.jpg: is not a BMP, GIF", "precision"):
        assert text in report
    assert report.count("data:image/png") == 5


def test_training_again_finds_the_run_finished(trained, cache):
    folder, _ = trained
    again = csametric("train", "hardnet_csa", "--data", "photos:photos", "--name", "mine", *SMALL, cwd=folder, cache=cache)
    assert again.returncode == 0, again.stderr


def test_evaluate_on_a_folder_of_photographs(trained, cache):
    folder, _ = trained
    done = csametric("evaluate", "runs/mine", "--data", "photos:photos", cwd=folder, cache=cache)
    assert done.returncode == 0, done.stderr
    assert "1 skipped" in done.stdout
    assert done.stdout.count("SIFT") >= 2


def test_demo_compares_two_runs(tmp_path, cache, photo_folder):
    settings = ["--set", "steps=2", "--set", f"data.folder={photo_folder}"]
    done = csametric("demo", *SMALL, *settings, "--out", "out", cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    for label in ("SIFT", "RootSIFT", "HardNet", "HardNet + CSA"):
        assert label in done.stdout
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["train", "hardent"], "use one of hardnet"),
        (["train", "hardnet", "--set", "optimizer.rate=1"], "did you mean"),
        (["train", "hardnet", "--data", "photos:nowhere"], "nowhere does not exist"),
        (["train", "hardnet", "--data", "video:x"], "write one of photos:FOLDER, brown:FOLDER"),
        (["evaluate", "nowhere"], "is not a run"),
        (["train", "hardnet", "--seed", "-1"], "seed must be a whole number"),
        (["bench", "nothing"], "use one of attention"),
    ],
)
def test_mistakes_are_one_sentence_with_exit_status_2(arguments, advice, tmp_path, called_here):
    done = called_here(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert advice in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_run_with_other_settings_is_not_overwritten(trained, called_here):
    folder, _ = trained
    before = (folder / "runs" / "mine" / "experiment.json").read_text()
    done = called_here("train", "hardnet", "--data", "photos:photos", "--name", "mine", cwd=folder)
    assert done.returncode == 2
    assert "choose another folder for this run" in done.stderr
    assert "--name" in done.stderr
    assert (folder / "runs" / "mine" / "experiment.json").read_text() == before


def test_a_file_in_place_of_the_runs_folder_is_explained(tmp_path, photo_folder, called_here):
    (tmp_path / "runs").write_text("a file")
    done = called_here("train", "hardnet", "--data", f"photos:{photo_folder}", *SMALL, cwd=tmp_path)
    assert done.returncode == 2
    assert "check the path and its permissions" in done.stderr


def test_debug_shows_the_traceback(tmp_path, called_here):
    done = called_here("--debug", "evaluate", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_internal_errors_have_exit_status_1(monkeypatch, capsys):
    from csametric.cli import app

    monkeypatch.setattr(app, "app", lambda: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["csametric"])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", *COMMANDS, "data check", "hpatches extract", "hpatches score"])
def test_every_command_has_help_with_an_example(command, tmp_path, called_here):
    done = called_here(*command.split(), "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Example: csametric" in done.stdout


def test_recipes_and_doctor_print_tables(tmp_path, called_here):
    listed = called_here("recipes", cwd=tmp_path)
    assert listed.returncode == 0
    assert "hardnet_csa" in listed.stdout
    described = called_here("doctor", cwd=tmp_path)
    assert described.returncode == 0
    assert "reordered" in described.stdout


def test_help_has_no_brackets_which_would_not_be_printed():
    """Text in brackets is taken for markup; a default belongs in show_default."""
    commands = [load_command(name) for name in COMMANDS]
    for command in commands:
        commands += getattr(command, "commands", {}).values()
        for parameter in command.params:
            assert "[" not in (getattr(parameter, "help", None) or ""), (command.name, parameter.name)
