"""Progress where the output is not a terminal: plain lines now and then."""

import pytest

from csametric import progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    seconds = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: seconds[0])
    return seconds


def test_long_work_prints_a_line_every_half_minute_and_a_last_one(clock, capsys):
    for item in progress.show_progress(range(10), "matching", 10, enabled=True):
        clock[0] += 10
        assert item < 10
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["matching 3/10", "matching 6/10", "matching 9/10", "matching 10/10"]
    assert all("elapsed" in line for line in lines)


def test_short_work_prints_nothing(clock, capsys):
    list(progress.show_progress(range(10), "matching", 10, enabled=True))
    assert capsys.readouterr().out == ""


def test_disabled_progress_prints_nothing(clock, capsys):
    for _ in progress.show_progress(range(10), "matching", 10, enabled=False):
        clock[0] += 100
    assert capsys.readouterr().out == ""


def test_a_training_line_has_its_note(clock, capsys):
    with progress.step_progress("training", 100, 20, "Training on 5 photographs.", enabled=True) as advance:
        clock[0] += 31
        advance(40, "loss 0.31 [a]")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Training on 5 photographs."
    assert lines[1].startswith("training 40/100 loss 0.31 [a], ")


def test_a_function_of_items_done_and_in_total_prints_lines(clock, capsys):
    with progress.show_data_progress(True, "reading", "files") as advance:
        advance(0, 8)
        clock[0] += 30
        advance(4, 8)
    assert capsys.readouterr().out.startswith("reading 4/8 files, ")
