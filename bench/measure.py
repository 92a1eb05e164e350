"""Interleaved timing: every contender once a round, so that a busy machine slows them all alike."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from csametric.runs.environment import describe_environment
from csametric.runs.precision import choose_precision

RESULTS = Path(__file__).parent / "results"


def best_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def interleaved(contenders: Mapping[str, Callable[[], Any]], rounds: int = 15, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of every contender in every round, after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(warm_up + rounds):
        for name, run in contenders.items():
            wait()
            started = time.perf_counter()
            run()
            wait()
            if round_ >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def wait() -> None:
    """Until the GPU, if there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(seconds: Mapping[str, list[float]], slow: str, fast: str) -> tuple[float, float, float]:
    """Median, lower and upper quartile of the paired ratios slow / fast."""
    paired = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
    lower, _, upper = quantiles(paired, n=4)
    return median(paired), lower, upper


def write_results(name: str, rows: list[dict[str, Any]], folder: Path = RESULTS) -> Path:
    """Write rows with the machine and the versions to FOLDER/NAME.json."""
    device = best_device()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    machine = describe_environment(device, choose_precision("auto", device))
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    return path
