"""reproduce as a user calls it: on a folder that holds one dataset, again, in a trial, with mistakes."""

import csv
from pathlib import Path

import pytest

from csametric.errors import DivergedError
from csametric.files import lock_folder
from csametric.reproduction.paper import TABLES
from csametric.reproduction.plan import make_plan
from csametric.runs.folder import read_scores
from csametric.training import loop
from tests.data import people

ROWS = ["--row", "PCB", "--row", "PCB + CSA"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return people.write_market(tmp_path_factory.mktemp("data") / "Market-1501").parent


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("out")


def test_a_table_with_the_datasets_that_are_there(called_here, root, out):
    done = called_here("reproduce", "table1", "--data-root", root, "--budget", "tiny", *ROWS, "--out", out, cwd=out)
    assert done.returncode == 0, done.stderr
    folder = out / "tiny"
    assert "DukeMTMC-reID.zip (withdrawn by its authors; for those who hold it)" in done.stdout
    assert (folder / "table1.txt").read_text() in done.stdout
    (run,) = (folder / "runs").glob("pcb_csa-market1501-seed0-*")
    assert (run / "report.html").is_file()
    with (folder / "table1.csv").open() as file:
        rows = {(row["row"], row["dataset"], row["figure"]): row for row in csv.DictReader(file)}
    ours = rows["PCB + CSA", "Market-1501", "R-1"]["ours"]
    assert float(ours) == pytest.approx(100 * read_scores(run)["rank1"], abs=1e-3)
    assert rows["PCB + CSA", "CUHK03-NP", "R-1"]["ours"] == ""
    assert rows["PCB + CSA", "CUHK03-NP", "R-1"]["paper"] == "67.2"
    page = (folder / "table1.html").read_text()
    assert "PCB + CSA" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_again_it_trains_nothing_and_says_the_same(called_here, root, out, monkeypatch):
    before = (out / "tiny" / "table1.csv").read_text()
    monkeypatch.setattr(loop, "train", lambda *_: pytest.fail("trained again"))
    done = called_here("reproduce", "table1", "--data-root", root, "--budget", "tiny", *ROWS, "--out", out, cwd=out)
    assert done.returncode == 0, done.stderr
    assert (out / "tiny" / "table1.csv").read_text() == before


def test_a_dry_run_measures_and_runs_nothing(called_here, root, tmp_path):
    words = [
        "reproduce",
        "table1",
        "--data-root",
        root,
        "--budget",
        "tiny",
        "--seeds",
        2,
        *ROWS,
        "--dry-run",
        "--out",
        tmp_path,
    ]
    done = called_here(*map(str, words), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pcb_csa-market1501-seed1" in done.stdout
    assert "to do" in done.stdout
    assert "in all" in done.stdout
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["paces.json"]


def test_figure_5_of_the_run_that_is_there(called_here, root, out):
    done = called_here("reproduce", "figure5", "--data-root", root, "--budget", "tiny", "--out", out, cwd=out)
    assert done.returncode == 0, done.stderr
    assert (out / "tiny" / "figure5.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table1"], "--data-root ROOT"),
        (["table1", "--data-root", "nowhere"], "there is no folder nowhere"),
        (["table1", "--data-root", ".", "--row", "PCD"], "there is no row 'PCD' in table1; use one of"),
        (["table1", "--data-root", ".", "--collect", "nowhere"], "there is no folder nowhere to collect runs from"),
        (["table2", "--data-root", "."], "nothing could be run; . has no folder market-1501"),
    ],
)
def test_mistakes_are_explained(called_here, tmp_path, words, message):
    done = called_here("reproduce", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


def test_a_root_that_is_a_dataset_is_explained(called_here, root):
    done = called_here("reproduce", "table1", "--data-root", root / "Market-1501", cwd=root)
    assert done.returncode == 2
    assert "is a dataset; name the folder above" in " ".join(done.stderr.split())


def test_running_one_row_keeps_the_others_in_the_table(called_here, root, out):
    words = ["reproduce", "table1", "--data-root", root, "--budget", "tiny", "--row", "PCB", "--out", out]
    done = called_here(*words, cwd=out)
    assert done.returncode == 0, done.stderr
    with (out / "tiny" / "table1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["row"] for row in rows if row["ours"]} == {"PCB", "PCB + CSA"}


def test_what_another_process_trains_is_left_to_it(called_here, root, tmp_path):
    plan = make_plan([TABLES["table1"].of_rows(["PCB"], False)], root, tmp_path / "tiny", "tiny", seeds=1)
    (run,) = plan.runs.values()
    with lock_folder(run.folder):
        words = ["--data-root", root, "--budget", "tiny", "--row", "PCB", "--out", tmp_path]
        done = called_here("reproduce", "table1", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"left to another process: {run.folder.name}" in done.stdout
    assert (tmp_path / "tiny" / "table1.csv").is_file()


def test_a_failure_in_a_group_does_not_end_the_others(called_here, root, tmp_path, monkeypatch):
    def diverge(*_):
        raise DivergedError("training diverged at step 3")

    monkeypatch.setattr(loop, "train", diverge)
    monkeypatch.setenv("LOCAL_RANK", "0")
    words = ["--data-root", root, "--budget", "tiny", "--row", "PCB", "--out", tmp_path]
    done = called_here("reproduce", "table1", *words, cwd=tmp_path)
    assert done.returncode == 0
    assert "1 runs have failed, the first: training diverged at step 3" in done.stderr


def test_what_would_be_collected_takes_no_time(called_here, root, out, tmp_path):
    words = ["--data-root", root, "--budget", "tiny", "--row", "PCB", "--collect", out, "--dry-run", "--out", tmp_path]
    done = called_here("reproduce", "table1", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "would be collected: pcb-market1501-seed0" in done.stdout
    assert "to be collected" in done.stdout
    assert "in all 0 s" in done.stdout
