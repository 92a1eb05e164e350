"""Atomic writes of one or several processes, leftovers of killed processes, locked and replaced folders."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from csametric import files
from csametric.errors import BusyError, printable
from csametric.files import copy_atomically, lock_folder, replace_folder, temporary_path, write_atomically, write_text

FORK = multiprocessing.get_context("fork")


def write_repeatedly(path: Path, letter: bytes) -> None:
    for _ in range(30):
        write_atomically(path, lambda out: [out.write(letter * 1000) for _ in range(50)])


def test_a_failed_write_keeps_the_old_file(tmp_path):
    target = tmp_path / "file.txt"
    write_text(target, "old")

    def fail_halfway(out):
        out.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(target, fail_halfway)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_concurrent_writes_do_not_mix(tmp_path):
    target = tmp_path / "file"
    writers = [FORK.Process(target=write_repeatedly, args=(target, letter)) for letter in (b"a", b"b", b"c")]
    for writer in writers:
        writer.start()
    contents = set()
    while any(writer.is_alive() for writer in writers):
        if target.exists():
            contents.add(target.read_bytes())
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert contents <= {letter * 50_000 for letter in (b"a", b"b", b"c")}
    assert list(tmp_path.iterdir()) == [target]


def test_files_have_the_default_permissions(tmp_path):
    write_text(tmp_path / "ours", "")
    (tmp_path / "default").write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "default").stat().st_mode


def test_leftovers_of_killed_processes_are_removed_and_those_in_use_kept(tmp_path):
    def write_slowly():
        with temporary_path(tmp_path / "slow") as part:
            part.write_text("half")
            time.sleep(60)

    killed, alive = (FORK.Process(target=write_slowly) for _ in range(2))
    for process in (killed, alive):
        process.start()
    while len(list(tmp_path.glob(".csametric-*.part/slow"))) < 2:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    write_text(tmp_path / "file", "new")
    leftovers = list(tmp_path.glob(".csametric-*.part/slow"))
    alive.kill()
    alive.join()
    assert len(leftovers) == 1
    files._cleaned.clear()  # as in the next process
    write_text(tmp_path / "file", "newer")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_copy_has_the_content_of_its_source(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    copy_atomically(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"content"


def test_folders_are_replaced_completely_or_not_at_all(tmp_path):
    folder = tmp_path / "out"
    for content in ("old", "new"):
        with replace_folder(folder) as new:
            (new / content).touch()
    assert [path.name for path in folder.iterdir()] == ["new"]
    with pytest.raises(FileExistsError), replace_folder(folder) as new:
        (new / "half").mkdir(), (new / "half").mkdir()
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_kill_between_the_renames_keeps_the_old_folder(tmp_path):
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "file").touch()
    with pytest.raises(RuntimeError), replace_folder(tmp_path / "out"):
        raise RuntimeError
    assert (tmp_path / "out" / "file").is_file()


def test_a_lock_excludes_others_until_it_is_released(tmp_path):
    order = []

    def wait():
        with lock_folder(tmp_path / "run", wait=True):
            order.append("second")

    with lock_folder(tmp_path / "run"):
        with pytest.raises(BusyError, match=r"another process is using .*run; wait"), lock_folder(tmp_path / "run"):
            pass
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("plain Ünïcode  .png", "plain Ünïcode  .png"), ("a\nb\x1b[31m", r"a\nb\x1b[31m"), ("\udcff", r"\udcff")],
)
def test_printable_names_fit_on_one_line(name, text):
    assert printable(name) == text
