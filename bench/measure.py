"""Interleaved timing: every contender runs once per round, so that a busy machine slows all of them alike."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from csametric.runs.environment import describe_environment
from csametric.runs.precision import choose_precision

RESULTS = Path(__file__).parent / "results"


def best_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def interleaved(
    contenders: Mapping[str, Callable[[], Any]], rounds: int = 15, warm_up: int = 2, calls: int = 1
) -> dict[str, list[float]]:
    """Time every contender once per round, in turn.

    Args:
        contenders: name -> function without arguments.
        rounds: timed rounds.
        warm_up: rounds before them that are not timed.
        calls: calls in a row in each round; a GPU is waited for after the last one, so that short calls keep it busy.

    Returns:
        name -> seconds per call in each round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_index in range(warm_up + rounds):
        for name, run in contenders.items():
            wait()
            started = time.perf_counter()
            for _ in range(calls):
                run()
            wait()
            if round_index >= warm_up:
                seconds[name].append((time.perf_counter() - started) / calls)
    return seconds


def graphed(calls: Mapping[str, Callable[[], Any]]) -> dict[str, Callable[[], Any]]:
    """Return functions that replay the calls from CUDA graphs: the GPU's time alone, without Python's.

    Every call runs a few times first, on a stream of its own, so that kernels are compiled and workspaces allocated. The graphs
    share their memory, which is safe because they are replayed one after the other and their results are not read.
    """
    pool = torch.cuda.graph_pool_handle()
    return {name: _graph(call, pool).replay for name, call in calls.items()}


def _graph(call: Callable[[], Any], pool: Any) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        call()
    return graph


def middle(values: Sequence[float]) -> float:
    """Return the middle one of the sorted values, the upper one of two.

    >>> middle([3.0, 1.0, 2.0])
    2.0
    """
    return sorted(values)[len(values) // 2]


def wait() -> None:
    """Wait until the GPU, if there is one, has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(seconds: Mapping[str, list[float]], slow: str, fast: str) -> tuple[float, float, float]:
    """Return the median, lower and upper quartile of the ratios slow / fast, paired by round.

    >>> ratio({"a": [2.0, 4.0, 6.0], "b": [1.0, 1.0, 1.0]}, "a", "b")
    (4.0, 2.0, 6.0)
    """
    paired = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
    lower, _, upper = quantiles(paired, n=4)
    return median(paired), lower, upper


def write_results(name: str, rows: list[dict[str, Any]], folder: Path = RESULTS) -> Path:
    """Write the rows, the machine and the versions to FOLDER/NAME.json, and return its path."""
    device = best_device()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    machine = describe_environment(device, choose_precision("auto", device))
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    return path
