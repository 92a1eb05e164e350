"""Re-identification from the command line: training, evaluation, features and checks of datasets."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from tests.cli.test_cli import csametric
from tests.data import people
from tests.training import tiny_reid

SMALL = [argument for setting in tiny_reid.SETTINGS for argument in ("--set", setting)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("work")
    people.write_folders(folder / "people")
    people.write_market(folder / "market")
    done = csametric("train", "pcb_csa", "--data", "folder:people", "--name", "mine", *SMALL, cwd=folder, cache=cache)
    return folder, done


def test_train_on_a_folder_of_people(trained):
    folder, done = trained
    assert done.returncode == 0, done.stderr
    assert "people: train 64 images of 8 identities; query 16 images of 8 identities" in done.stdout
    for text in ("mAP (step)", "mAP (trapezoid)", "mINP", "open runs/mine/report.html", "single query"):
        assert text in done.stdout
    report = (folder / "runs" / "mine" / "report.html").read_text()
    for text in ("How well are people re-identified?", "Ranked lists of pcb_csa", "two conventions", "Settings of pcb_csa"):
        assert text in report
    assert report.count("data:image/png") == 5, "ranked lists, maps, two images to explore, curves"


def test_evaluate_on_another_dataset(trained, cache):
    folder, _ = trained
    done = csametric("evaluate", "runs/mine", "--data", "market1501:market", cwd=folder, cache=cache)
    assert done.returncode == 0, done.stderr
    assert "NOT AS PUBLISHED" in done.stdout
    scores = json.loads((folder / "runs/mine/evaluation/market-1501.json").read_text())
    assert scores["rank1"] > 0.9
    assert (folder / "runs/mine/evaluation/market-1501.png").stat().st_size > 10_000
    again = csametric("evaluate", "runs/mine", "--rerank", "--flip", cwd=folder, cache=cache)
    assert again.returncode == 0, again.stderr
    assert "re-ranked (k1 = 20, k2 = 6, lambda = 0.3)" in again.stdout
    assert (folder / "runs/mine/evaluation/people-rerank-flip.json").is_file()


def test_two_datasets_of_the_same_name_have_a_file_each(trained, called_here):
    folder, _ = trained
    people.write_folders(folder / "other" / "people")
    for data in ("folder:people", "folder:other/people", "folder:people"):
        done = called_here("evaluate", "runs/mine", "--data", data, cwd=folder)
        assert done.returncode == 0, done.stderr
    paths = sorted((folder / "runs/mine/evaluation").glob("people*.json"))
    evaluations = [json.loads(path.read_text()) for path in paths if "rerank" not in path.name]
    assert [evaluation["data"] for evaluation in evaluations] == ["folder:people", "folder:people"]
    assert len({evaluation["path_digest"] for evaluation in evaluations}) == 2


def test_two_processes_give_the_scores_of_one(trained, cache):
    folder, _ = trained
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = ["csametric", "evaluate", "runs/mine", "--data", "folder:people"]
    done = subprocess.run([*launch, *command], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    two = json.loads((folder / "runs/mine/evaluation/people.json").read_text())
    assert two.pop("data") == "folder:people"
    del two["path_digest"]
    one = json.loads((folder / "runs/mine/scores.json").read_text())
    del one["compact"]  # only training scores every number of dimensions
    assert two == one


def test_embed_writes_npy_and_parquet(trained, cache):
    folder, _ = trained
    done = csametric("embed", "runs/mine", "people/query", "--out", "out/x.npy", cwd=folder, cache=cache)
    assert done.returncode == 0, done.stderr
    features = np.load(folder / "out" / "x.npy")
    names = (folder / "out" / "x.txt").read_text().splitlines()
    assert features.shape == (16, 3 * 96)
    assert features.dtype == np.float32
    assert names[0] == "person 09/cam1_0.png"
    done = csametric("embed", "runs/mine", "people/query", "--out", "x.parquet", cwd=folder, cache=cache)
    assert done.returncode == 0, done.stderr
    table = parquet.read_table(folder / "x.parquet")
    np.testing.assert_array_equal(np.stack(table["features"].to_pylist()).astype(np.float32), features)


def test_a_damaged_image_is_skipped_and_named(trained, tmp_path, called_here):
    folder, _ = trained
    (tmp_path / "images").mkdir()
    people.person(1, 1, 1).save(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "b.png").write_bytes(b"no image")
    done = called_here("embed", "runs/mine", str(tmp_path / "images"), "--out", str(tmp_path / "x.npy"), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "skipped: " in done.stdout
    assert (tmp_path / "x.txt").read_text() == "a.png\n"


def test_a_file_name_of_two_lines_is_one_line_beside_the_features(trained, tmp_path, called_here):
    folder, _ = trained
    (tmp_path / "images").mkdir()
    for number, name in enumerate(("a.png", "b\nc.png", "d.png")):
        people.person(number, 1, 1).save(tmp_path / "images" / name)
    done = called_here("embed", "runs/mine", str(tmp_path / "images"), "--out", str(tmp_path / "x.npy"), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.txt").read_text().splitlines() == ["a.png", r"b\nc.png", "d.png"]
    assert len(np.load(tmp_path / "x.npy")) == 3


def test_identities_that_look_like_mathematics_are_drawn_literally(tmp_path, called_here):
    for number in range(4):
        (tmp_path / "people" / rf"$\frac{number}$").mkdir(parents=True)
        for image in range(2):
            people.person(number, 1, image).save(tmp_path / "people" / rf"$\frac{number}$" / f"{image}.png")
    done = called_here("data", "check", "folder:people", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "contact_sheet.png").stat().st_size > 10_000


def test_scores_and_reports_contain_no_path_of_this_machine(trained, called_here):
    folder, _ = trained
    done = called_here("evaluate", "runs/mine", "--data", "folder:people", "--no-camera-filter", cwd=folder)
    assert done.returncode == 0, done.stderr
    written = [folder / "runs/mine/scores.json", folder / "runs/mine/report.html"]
    written += sorted((folder / "runs/mine/evaluation").glob("*.json"))
    assert len(written) > 2
    for path in written:
        assert str(folder) not in path.read_text(), path


def test_check_lists_problems_and_draws_a_contact_sheet(trained, called_here):
    folder, _ = trained
    (folder / "market" / "query" / "0009_c1s1_000088_00.png").write_bytes(b"no image")
    done = called_here("data", "check", "market1501:market", "--out", "sheet.png", cwd=folder)
    assert done.returncode == 0, done.stderr
    problems = ("unreadable files: 1", "identical files in two splits: 0")
    for text in ("NOT AS PUBLISHED", *problems, "contact sheet: sheet.png"):
        assert text in done.stdout
    assert (folder / "sheet.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "pcb"], "no dataset given; name a kind (folder, csv, market1501"),
        (["train", "pcb", "--data", "market1501:nowhere"], "does not exist"),
        (
            ["train", "pcb", "--data", "nowhere"],
            "'nowhere' does not say what kind of data it is; write for example folder:nowhere",
        ),
        (
            ["train", "pcb", "--data", "photos:people"],
            "'photos:people' cannot be used here; write one of folder:FOLDER, csv:FILE",
        ),
        (["train", "pcb", "--data", "markt1501:people"], "did you mean market1501?"),
        (["evaluate", "runs/mine", "--data", "folder:nowhere"], "does not exist"),
        (["evaluate", "runs/mine", "--data", "folder:runs/mine/weights.safetensors"], "is a file, not a folder"),
        (["embed", "runs/mine", "people", "--out", "x.csv"], "must end in .npy or .parquet"),
        (["embed", "runs/mine", "nowhere", "--out", "x.npy"], "folder nowhere does not exist"),
        (["embed", "runs/mine", "runs/mine/state", "--out", "x.npy"], "contains no images"),
        (["data", "check", "market1501:people"], "does not exist"),
    ],
)
def test_mistakes_are_one_sentence_with_exit_status_2(trained, arguments, message, called_here):
    folder, _ = trained
    done = called_here(*arguments, cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("csametric: ")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime-int8"])
def test_other_engines_embed_and_are_evaluated(trained, called_here, engine):
    folder, _ = trained
    done = called_here("evaluate", "runs/mine", "--engine", engine, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert engine in done.stdout
    scores = json.loads((folder / f"runs/mine/evaluation/people-{engine}.json").read_text())
    assert (scores["rank1"] > 0.9, scores["engine"]) == (True, engine)
    features = {}
    for name in ("torch", engine):
        done = called_here("embed", "runs/mine", "people", "--out", f"{name}.npy", "--engine", name, cwd=folder)
        assert done.returncode == 0, done.stderr
        features[name] = np.load(folder / f"{name}.npy")
    difference = np.linalg.norm(features[engine] - features["torch"], axis=1).max()
    assert difference < (1e-4 if engine == "onnxruntime" else 0.5)
    assert (difference > 1e-3) == (engine == "onnxruntime-int8")
