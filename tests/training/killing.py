"""Kill a run in a separate process with SIGKILL."""

import os
import random
import signal
import time
from pathlib import Path

from tests import processes

ROOT = Path(__file__).parents[2]


def kill_after(steps: int, folder: Path, delays: random.Random, module: str, *words: str | Path) -> None:
    """Start a run and kill it at a random moment after it has logged some steps; it must not have finished before."""
    run = processes.start(module, words, ROOT, {}, Path(os.devnull), Path(os.devnull))
    deadline = time.monotonic() + 120
    while run.is_alive() and time.monotonic() < deadline:
        metrics = folder / "metrics.jsonl"
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= steps:
            time.sleep(delays.uniform(0, 0.1))
            break
        time.sleep(0.01)
    run.kill()
    run.join()
    assert run.exitcode == -signal.SIGKILL
