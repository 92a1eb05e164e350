"""`csametric reproduce` on a folder that holds one dataset: first, again, as a dry run, and with mistakes."""

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


def test_a_table_is_filled_from_the_datasets_that_are_present(called_here, root, out):
    done = called_here("reproduce", "table1", "--data-root", root, "--budget", "tiny", *ROWS, "--out", out, cwd=out)
    assert done.returncode == 0, done.stderr
    folder = out / "tiny"
    assert "DukeMTMC-reID.zip (withdrawn by its authors: only if you have a copy)" in done.stdout
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


def test_a_second_call_trains_nothing_and_writes_the_same(called_here, root, out, monkeypatch):
    before = (out / "tiny" / "table1.csv").read_text()
    monkeypatch.setattr(loop, "train", lambda *_: pytest.fail("trained again"))
    done = called_here("reproduce", "table1", "--data-root", root, "--budget", "tiny", *ROWS, "--out", out, cwd=out)
    assert done.returncode == 0, done.stderr
    assert (out / "tiny" / "table1.csv").read_text() == before


def test_a_dry_run_measures_but_runs_nothing(called_here, root, tmp_path):
    arguments = [
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
    done = called_here(*map(str, arguments), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pcb_csa-market1501-seed1" in done.stdout
    assert "to do" in done.stdout
    assert "total: " in done.stdout
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["paces.json"]


def test_figure_5_is_drawn_from_the_finished_run(called_here, root, out):
    done = called_here("reproduce", "figure5", "--data-root", root, "--budget", "tiny", "--out", out, cwd=out)
    assert done.returncode == 0, done.stderr
    assert (out / "tiny" / "figure5.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table1"], "--data-root ROOT"),
        (["table1", "--data-root", "nowhere"], "folder nowhere does not exist"),
        (["table1", "--data-root", ".", "--row", "PCD"], "table1: unknown row 'PCD'; use one of"),
        (["table1", "--data-root", ".", "--collect", "nowhere"], "folder nowhere, from which to collect runs, does not exist"),
        (
            ["table2", "--data-root", "."],
            "nothing could be run: Market-1501-v15.09.15 is missing; get Market-1501-v15.09.15.zip",
        ),
    ],
)
def test_mistakes_are_explained(called_here, tmp_path, arguments, message):
    done = called_here("reproduce", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


def test_a_data_root_that_is_a_dataset_is_refused(called_here, root):
    done = called_here("reproduce", "table1", "--data-root", root / "Market-1501", cwd=root)
    assert done.returncode == 2
    assert "is a dataset; name the folder above it" in " ".join(done.stderr.split())


def test_running_one_row_keeps_the_others_in_the_table(called_here, root, out):
    arguments = ["reproduce", "table1", "--data-root", root, "--budget", "tiny", "--row", "PCB", "--out", out]
    done = called_here(*arguments, cwd=out)
    assert done.returncode == 0, done.stderr
    with (out / "tiny" / "table1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["row"] for row in rows if row["ours"]} == {"PCB", "PCB + CSA"}


def test_a_run_of_another_process_is_left_to_it(called_here, root, tmp_path):
    plan = make_plan([TABLES["table1"].with_rows(["PCB"], False)], root, tmp_path / "tiny", "tiny", seeds=1)
    (run,) = plan.runs.values()
    with lock_folder(run.folder):
        arguments = ["--data-root", root, "--budget", "tiny", "--row", "PCB", "--out", tmp_path]
        done = called_here("reproduce", "table1", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"left to another process: {run.folder.name}" in done.stdout
    assert (tmp_path / "tiny" / "table1.csv").is_file()


def test_a_failure_under_torchrun_exits_with_status_0(called_here, root, tmp_path, monkeypatch):
    def diverge(*_):
        raise DivergedError("training diverged at step 3")

    monkeypatch.setattr(loop, "train", diverge)
    monkeypatch.setenv("LOCAL_RANK", "0")
    arguments = ["--data-root", root, "--budget", "tiny", "--row", "PCB", "--out", tmp_path]
    done = called_here("reproduce", "table1", *arguments, cwd=tmp_path)
    assert done.returncode == 0
    assert "1 run failed; the first error: training diverged at step 3" in done.stderr


def test_a_dry_run_counts_no_time_for_runs_to_be_collected(called_here, root, out, tmp_path):
    arguments = ["--data-root", root, "--budget", "tiny", "--row", "PCB", "--collect", out, "--dry-run", "--out", tmp_path]
    done = called_here("reproduce", "table1", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "would be collected: pcb-market1501-seed0" in done.stdout
    assert "to be collected" in done.stdout
    assert "total: 0 s" in done.stdout
