"""A real SIGKILL for a run in a process of its own."""

import random
import signal
import subprocess
import time
from pathlib import Path


def kill_after(run: subprocess.Popen[bytes], folder: Path, steps: int, draw: random.Random) -> None:
    """Kill a run a random moment after it has logged so many steps; it must not have ended before."""
    deadline = time.monotonic() + 120
    while run.poll() is None and time.monotonic() < deadline:
        metrics = folder / "metrics.jsonl"
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= steps:
            time.sleep(draw.uniform(0, 0.1))
            break
        time.sleep(0.01)
    run.kill()
    run.communicate()
    assert run.returncode == -signal.SIGKILL
