"""Programs in processes of their own that start within milliseconds: forked from a server that has imported torch once."""

import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["csametric.cli.runs", "csametric.training.loop", "csametric.reports.run_report", "csametric.reports.reid_report"]
CONTEXT.set_forkserver_preload(PRELOADED)
SECONDS = 300


def start(module: str, words: Sequence[str | Path], cwd: Path, env: Mapping[str, str], out: Path, err: Path) -> BaseProcess:
    """Start `python -m module words`; its output goes to two files."""
    process = CONTEXT.Process(target=_become, args=(module, [str(word) for word in words], cwd, dict(env), out, err))
    process.start()
    return process


def run(module: str, *words: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> "CompletedProcess[str]":
    """Run `python -m module words` to its end, with variables added to the environment."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = start(module, words, cwd, env or {}, out, err)
        process.join(SECONDS)
        assert process.exitcode is not None, f"{module} has not ended within {SECONDS} s"
        return CompletedProcess([module, *map(str, words)], process.exitcode, out.read_text(), err.read_text())


def run_group(count: int, module: str, *words: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a program in processes that find one another as under torchrun; returns what the first one printed as errors."""
    with TemporaryDirectory() as folder:
        shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())} | dict(env or {})
        errors = [Path(folder, f"err{rank}") for rank in range(count)]
        group = [
            start(module, words, cwd, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, Path(os.devnull), errors[rank])
            for rank in range(count)
        ]
        for process in group:
            process.join(SECONDS)
        assert [process.exitcode for process in group] == [0] * count, "\n".join(path.read_text() for path in errors)
        return errors[0].read_text()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _become(module: str, words: list[str], cwd: Path, env: dict[str, str], out: Path, err: Path) -> None:
    for path, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
