"""Kill a run in a separate process with SIGKILL."""

import random
import signal
import subprocess
import time
from pathlib import Path


def kill_after(run: subprocess.Popen[bytes], folder: Path, steps: int, delays: random.Random) -> None:
    """Kill a run at a random moment after it has logged some steps; it must not have finished before."""
    deadline = time.monotonic() + 120
    while run.poll() is None and time.monotonic() < deadline:
        metrics = folder / "metrics.jsonl"
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= steps:
            time.sleep(delays.uniform(0, 0.1))
            break
        time.sleep(0.01)
    run.kill()
    run.communicate()
    assert run.returncode == -signal.SIGKILL
