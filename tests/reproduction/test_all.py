"""All tables of the paper on generated datasets: an undisturbed run and a run that is killed twice give the same ones."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from csametric.reproduction.paper import TABLES
from tests.reproduction.paper_data import write_all

REPRODUCE = [sys.executable, "-m", "csametric", "reproduce", "all", "--budget", "tiny"]


def start(root: Path, out: Path, cache: Path) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"CSAMETRIC_CACHE": str(cache)}
    command = [*REPRODUCE, "--data-root", str(root), "--out", str(out)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(run: "subprocess.Popen[bytes]") -> None:
    _, errors = run.communicate(timeout=1800)
    assert run.returncode == 0, errors.decode()


def kill_when_finished(run: "subprocess.Popen[bytes]", out: Path, runs: int) -> None:
    """Kill the process during a training, once `runs` runs are finished."""
    deadline = time.monotonic() + 900
    while run.poll() is None and time.monotonic() < deadline:
        if len(list(out.glob("tiny/runs/*/scores.json"))) >= runs:
            break
        time.sleep(0.05)
    time.sleep(0.7)
    run.kill()
    run.communicate()
    assert run.returncode == -signal.SIGKILL


def figures(out: Path, name: str) -> list[list[str]]:
    with (out / "tiny" / f"{name}.csv").open() as file:
        return list(csv.reader(file))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_reproduction_that_is_killed_twice_gives_the_tables_of_an_undisturbed_one(tmp_path):
    root = write_all(tmp_path / "data")
    started = time.monotonic()
    finish(start(root, tmp_path / "undisturbed", tmp_path / "cache"))
    minutes = (time.monotonic() - started) / 60
    print(f"undisturbed: {minutes:.1f} minutes")
    assert minutes < 15

    killed = tmp_path / "killed"
    for runs in (7, 40):
        kill_when_finished(start(root, killed, tmp_path / "cache2"), killed, runs)
    finish(start(root, killed, tmp_path / "cache2"))
    for name in TABLES:
        undisturbed, resumed = figures(tmp_path / "undisturbed", name), figures(killed, name)
        assert [row[:6] for row in undisturbed] == [row[:6] for row in resumed]
        if name != "table6":
            assert [row[:-1] for row in undisturbed] == [row[:-1] for row in resumed], (
                f"{name} differs in more than its seconds"
            )
            assert all(row[6] for row in undisturbed if row[2] == "paper"), f"{name} has empty cells"
    assert len({row[6] for row in figures(killed, "table1") if row[6]}) > 20, "too few different figures to tell runs apart"
    assert not list(killed.rglob("*.part"))
    for name in ("report.html", "figure1.svg", "figure4.svg", "figure5.png"):
        assert (killed / "tiny" / name).is_file()
