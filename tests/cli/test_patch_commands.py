"""Commands about patches: Brown, HPatches, matching, converted weights."""

import json
import shutil
import sqlite3

import cv2
import numpy as np
import pytest
import torch

from csametric.data.hpatches import read_splits
from csametric.files import lock_folder
from csametric.inference.conversion import convert_hardnet
from csametric.inference.patches import build_descriptor
from csametric.recipes import find_recipe
from tests.data.brown_folder import write_subset
from tests.data.hpatches_folder import write_sequence, write_tasks
from tests.matching.scenes import write_homography_sequence, write_pair

TINY = ["pairs_per_epoch=64", "epochs=1", "batch_size=16", "evaluate_every=2"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    for seed, name in enumerate(("liberty", "notredame")):
        write_subset(folder / "brown" / name, points=40, pairs=80, seed=seed)
    return folder


@pytest.fixture(scope="module")
def checkpoint(work):
    """A file of weights in the layout of HardNet's authors."""
    torch.manual_seed(0)
    ours = build_descriptor(find_recipe("hardnet").model).state_dict()
    renamed = {}
    for name, tensor in ours.items():
        part, place, field = name.split(".")
        renamed[f"features.{int(place) + (9 if part == 'head' else 0)}.{field}"] = tensor
    torch.save({"state_dict": renamed, "epoch": 9}, work / "hardnet.pth")
    return work / "hardnet.pth"


@pytest.fixture(scope="module")
def run(work, checkpoint):
    """The run that the checkpoint is converted into."""
    convert_hardnet(checkpoint, work / "converted")
    return work / "converted"


def test_a_hardnet_checkpoint_is_converted_into_a_run(tmp_path, checkpoint, called_here):
    done = called_here("convert", checkpoint, "new", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = called_here("convert", checkpoint, "new", cwd=tmp_path)
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_a_killed_conversion_can_be_repeated(tmp_path, checkpoint, called_here, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("csametric.inference.conversion.to_json", stop)
        called_here("convert", checkpoint, "new", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
    done = called_here("convert", checkpoint, "new", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_training_on_brown_uses_the_brown_twin_of_a_recipe(work, called_here):
    settings = [argument for setting in TINY for argument in ("--set", setting)]
    done = called_here("train", "hardnet_csa", "--data", "brown:brown", *settings, cwd=work)
    assert done.returncode == 0, done.stderr
    assert "liberty: 120 patches of 40 points (published: 450,092 patches); tested on notredame (80 pairs)" in done.stdout
    assert (work / "runs" / "brown_hardnet_csa" / "report.html").is_file()
    done = called_here("evaluate", "runs/brown_hardnet_csa", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "notredame" in done.stdout
    assert "liberty" not in done.stdout


def test_a_converted_run_is_tested_on_brown(work, run, called_here):
    done = called_here("evaluate", "converted", "--data", "brown:brown", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "notredame" in done.stdout


@pytest.fixture(scope="module")
def hpatches(work):
    names = read_splits()["a"]
    for number, name in enumerate(names):
        write_sequence(work / "hpatches" / name, 3, seed=number)
    write_tasks(work / "hpatches", "a", names, [3] * 40, 20, 90)
    return work / "hpatches"


def test_extracted_hpatches_descriptors_score_as_the_run_itself(work, run, hpatches, called_here, monkeypatch):
    monkeypatch.setattr("csametric.data.hpatches.verification_pairs.__defaults__", (500,))
    done = called_here("evaluate", "converted", "--data", "hpatches:hpatches", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "retrieval (mAP, mean over pools)" in done.stdout
    extracted = called_here("hpatches", "extract", "converted", "hpatches", "described", cwd=work)
    assert extracted.returncode == 0, extracted.stderr
    scored = called_here("hpatches", "score", "described", "--tasks", "hpatches", cwd=work)
    assert scored.returncode == 0, scored.stderr
    figures = [[line.split("│")[1:3] for line in call.stdout.splitlines() if "│" in line] for call in (done, scored)]
    assert figures[0] == figures[1]
    without = called_here("hpatches", "score", "described", "--tasks", "described", cwd=work)
    assert "task file missing" in without.stdout
    wrong = called_here("hpatches", "score", "described", "--tasks", "hpatches", "--split", "full", cwd=work)
    assert wrong.returncode == 2
    assert "of split full is missing" in wrong.stderr


def test_descriptors_of_two_processes_never_mix(work, hpatches, called_here):
    with lock_folder(work / "shared"):
        refused = called_here("hpatches", "extract", "sift", "hpatches", "shared", cwd=work)
    assert refused.returncode == 2
    assert "another process is using shared" in refused.stderr
    assert list((work / "shared").iterdir()) == []


def test_two_photographs_are_matched(tmp_path, called_here):
    write_pair(tmp_path)
    done = called_here("match", "rootsift", "a.png", "b.png", "--colmap", "out/database.db", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "inliers of one homography" in done.stdout
    written = json.loads((tmp_path / "matches" / "a-b.json").read_text())
    assert written["inliers"] > 100
    assert cv2.imread(str(tmp_path / "matches" / "a-b.png")).shape[1] > 1000
    assert (tmp_path / "out" / "database.db").is_file()


def test_a_folder_of_photographs_gives_a_graph(tmp_path, called_here):
    write_pair(tmp_path)
    cv2.imwrite(str(tmp_path / "even.png"), np.full((100, 100), 90, np.uint8))
    done = called_here("match", "sift", ".", "--out", "graph", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "skipped: no keypoints found in even.png" in done.stdout
    (row,) = json.loads((tmp_path / "graph" / "graph.json").read_text())["pairs"]
    assert row["inliers"] > 100
    (tmp_path / "pairs.txt").write_text("a.png b.png\n")
    listed = called_here("match", "sift", "pairs.txt", "--out", "listed", "--pictures", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert (tmp_path / "listed" / "a-b.png").is_file()


def test_photographs_of_equal_stems_have_separate_results(tmp_path, called_here):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_pair(tmp_path / folder)
    (tmp_path / "pairs.txt").write_text("x/a.png x/b.png\ny/a.png y/b.png\ny/b.png y/a.png\n")
    done = called_here("match", "sift", "pairs.txt", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "graph.json",
        "x_a_png-x_b_png.json",
        "y_a_png-y_b_png.json",
    ]
    named = called_here("match", "sift", "pairs.txt", "--out", "out", "--colmap", "d.db", cwd=tmp_path)
    assert named.returncode == 0, named.stderr
    assert f"its image path is {tmp_path}" in named.stdout
    with sqlite3.connect(tmp_path / "d.db") as database:
        names = [name for (name,) in database.execute("SELECT name FROM images ORDER BY name")]
    assert names == ["x/a.png", "x/b.png", "y/a.png", "y/b.png"]


def test_dashes_in_names_do_not_mix_pairs_up(tmp_path, called_here):
    """1-2 with 3 and 1 with 2-3 would both be 1-2-3."""
    write_pair(tmp_path)
    for source, name in (("a", "1-2"), ("b", "3"), ("a", "1"), ("b", "2-3")):
        shutil.copy(tmp_path / f"{source}.png", tmp_path / f"{name}.png")
    (tmp_path / "pairs.txt").write_text("1-2.png 3.png\n1.png 2-3.png\n")
    done = called_here("match", "sift", "pairs.txt", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1--2-3.json", "1-2--3.json", "graph.json"]


def test_a_folder_is_searched_below_and_results_are_left_out(tmp_path, called_here):
    (tmp_path / "deep").mkdir()
    write_pair(tmp_path)
    (tmp_path / "b.png").rename(tmp_path / "deep" / "b.png")
    for _ in range(2):  # the second time, matches/ holds a picture
        done = called_here("match", "sift", ".", "--pictures", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(json.loads((tmp_path / "matches" / "graph.json").read_text())["pairs"]) == 1


def test_a_list_without_any_match_writes_nothing(tmp_path, called_here):
    (tmp_path / "pairs.txt").write_text("x.png y.png\n")
    done = called_here("match", "sift", "pairs.txt", "--colmap", "d.db", cwd=tmp_path)
    assert done.returncode == 2
    assert "none of the 1 pairs could be matched" in done.stderr
    assert "skipped: photograph x.png does not exist" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.txt"]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["a.png", "b.png", "--out", "a.png"], "is a file; name a folder"),
        (["a.png"], "need a second photograph"),
        (["a.png", "none.png"], "photograph none.png does not exist"),
        (["a.png", "even.png"], "no keypoints found in even.png"),
        (["a.png", "b.png", "--ratio", "2"], "ratio must be in (0, 1], got 2.0"),
        (["pairs.lst"], "list of pairs pairs.lst does not exist"),
    ],
)
def test_mistakes_in_matching_are_one_sentence(tmp_path, called_here, arguments, advice):
    write_pair(tmp_path)
    cv2.imwrite(str(tmp_path / "even.png"), np.full((100, 100), 90, np.uint8))
    done = called_here("match", "sift", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert advice in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_photographs_of_different_scenes_get_advice(tmp_path, called_here):
    write_pair(tmp_path)
    dot = np.full((100, 120), 90, np.uint8)
    cv2.circle(dot, (60, 50), 9, 255, -1)
    cv2.imwrite(str(tmp_path / "dot.png"), cv2.GaussianBlur(dot, (0, 0), 2))
    done = called_here("match", "sift", "a.png", "dot.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no geometry:" in done.stdout
    assert "--upright" in done.stdout


def test_descriptors_are_evaluated_on_photographs_with_known_geometry(tmp_path, run, work, called_here):
    folder = write_homography_sequence(tmp_path / "sequences" / "v_scene")
    done = called_here("evaluate", work / "converted", "--data", "sequences:sequences", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "homography AUC at 3 px, %" in done.stdout
    camera, pose = "400 0 240 0 400 180 0 0 1", "1 0 0 1 0 1 0 0 0 0 1 0 0 0 0 1"
    (folder / "pairs.txt").write_text(f"1.png 2.png 0 0 {camera} {camera} {pose}\n")
    done = called_here("evaluate", work / "converted", "--data", f"pairs:{folder / 'pairs.txt'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pose AUC at 20 degrees, %" in done.stdout
