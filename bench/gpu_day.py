"""What to measure when a GPU is at hand: first the kernels, then training. Each takes at most nine minutes on an H100.

`python -m bench.gpu_day kernels` runs the tests of the fused kernels, their accuracy, torch.compile from a cold start, and the
benchmarks. `python -m bench.gpu_day training --data cuhk03-detected:PATH` trains PCB, PCB + supervision, PCB + SA and PCB + CSA
side by side until the time is up; the same command goes on from the last checkpoint. Everything goes to one folder: a log per
command and `gpu_day_PART.json` with exit codes and seconds. `--rehearse` runs every command at a small size, on a CPU too.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.measure import RESULTS

ROOT = Path(__file__).parents[1]
MODULE = (sys.executable, "-m")
ARMS = ("lite_pcb", "lite_pcb_supervised", "lite_pcb_sa", "lite_pcb_csa")
COMPILE_COLD = """
import torch
from csametric import PCB
model = PCB(num_ids=8, backbone="resnet18", attention="csa", alpha=0.5).to(DEVICE)
images = torch.randn(2, 3, 384, 128, device=DEVICE)
with torch.autocast(DEVICE, torch.bfloat16):
    out = torch.compile(model, backend=BACKEND)(images)
sum(logits.float().sum() for logits in out.logits).backward()
print("compiled and differentiated")
"""


def check_commands(results: Path, rehearse: bool) -> dict[str, list[str]]:
    """Name -> command of what may be wrong. They run side by side, because compiling kernels takes most of their time.

    Two of them only fill Triton's cache, so that the benchmarks that follow find their kernels compiled.
    """
    place = ("cpu", "aot_eager") if rehearse else ("cuda", "inductor")
    commands = {
        "tests": [*MODULE, "pytest", "-q", "tests/attention/test_fused.py"]
        + (["-k", "empty_batch or autocast"] if rehearse else ["-n", "6", "-p", "no:benchmark"]),
        "accuracy": [*MODULE, "bench.kernels", "--profile", "--results", str(results)],
        "compile": [sys.executable, "-W", "error:Dynamo", "-c", f"DEVICE, BACKEND = {place}\n{COMPILE_COLD}"],
    }
    if not rehearse:
        for name in ("attention", "model"):
            folder = str(results / "warm_up")
            commands[f"warm_up_{name}"] = [*benchmark_commands(results, rehearse)[name], "--rounds", "2", "--results", folder]
    return commands


def benchmark_commands(results: Path, rehearse: bool) -> dict[str, list[str]]:
    """Name -> command of what may be slow. They run one after the other."""
    out = ["--results", str(results)]
    if rehearse:
        return {
            "memory": [*MODULE, "bench.memory", *out, "--batch", "2"],
            "model": [*MODULE, "bench.model", *out, "--rounds", "2", "--batch", "1", "--only", "inference"],
            "attention": [*MODULE, "bench.attention", *out, "--rounds", "2", "--batch", "1", "--only-csa"],
            "growth": [*MODULE, "bench.growth", *out, "--rounds", "2"],
        }
    return {
        "memory": [*MODULE, "bench.memory", *out],
        "model": [*MODULE, "bench.model", *out],
        "attention": [
            *MODULE,
            "bench.attention",
            *out,
            "--types",
            "bf16,fp32",
            "--formats",
            "channels_last,NCHW",
            "--rounds",
            "9",
        ],
        "growth": [*MODULE, "bench.growth", *out],
    }


def training_command(recipe: str, data: str, epochs: int, rehearse: bool) -> list[str]:
    """The command that trains or goes on with one arm: 384 x 128, batch 64, bf16."""
    settings = {"epochs": epochs, "batch_size": 64, "precision": "bf16", "data.height": 384, "data.width": 128}
    if rehearse:
        settings |= {"epochs": 1, "batch_size": 8, "data.height": 64, "data.width": 32, "model.pretrained": "none"}
    overrides = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return [*MODULE, "csametric", "train", recipe, "--data", data, *overrides]


class Command:
    """A command that runs in a folder and adds its output to a log."""

    def __init__(self, name: str, words: Sequence[str], results: Path, folder: Path) -> None:
        self.name, self.log, self.started = name, results / f"{name}.log", time.monotonic()
        paths = os.pathsep.join(filter(None, [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH")]))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                words, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=os.environ | {"PYTHONPATH": paths}
            )

    def wait(self, deadline: float) -> dict[str, Any]:
        """Wait until the command ends, or terminate it at the deadline; print and return its exit code and seconds."""
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self.process.wait()
        row = {"name": self.name, "exit": self.process.returncode, "seconds": time.monotonic() - self.started}
        print(f"{self.name}: exit {row['exit']}, {row['seconds']:.0f} s, log {self.log}", flush=True)
        return row


def run_in_turn(commands: dict[str, list[str]], results: Path, folder: Path, deadline: float) -> list[dict[str, Any]]:
    """Run the commands one after the other until the deadline."""
    return [Command(name, words, results, folder).wait(deadline) for name, words in commands.items()]


def run_side_by_side(commands: dict[str, list[str]], results: Path, folder: Path, deadline: float) -> list[dict[str, Any]]:
    """Run the commands at once until the deadline."""
    started = [Command(name, words, results, folder) for name, words in commands.items()]
    return [command.wait(deadline) for command in started]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("kernels", "training"))
    parser.add_argument("--data", help="KIND:PATH of the images to train on")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=8.5, help="the commands that have not ended by then are stopped")
    parser.add_argument("--results", type=Path, default=RESULTS / "gpu_day")
    parser.add_argument("--rehearse", action="store_true", help="small sizes, on a CPU too")
    arguments = parser.parse_args()
    if arguments.part == "training" and not arguments.data:
        parser.error("training needs --data KIND:PATH")
    results = arguments.results.absolute()
    results.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * arguments.minutes
    if arguments.part == "kernels":
        rows = run_side_by_side(check_commands(results, arguments.rehearse), results, ROOT, deadline)
        rows += run_in_turn(benchmark_commands(results, arguments.rehearse), results, ROOT, deadline)
    else:
        commands = {arm: training_command(arm, arguments.data, arguments.epochs, arguments.rehearse) for arm in ARMS}
        rows = run_side_by_side(commands, results, results, deadline)
    (results / f"gpu_day_{arguments.part}.json").write_text(json.dumps(rows, indent=1))
    sys.exit(any(row["exit"] for row in rows))


if __name__ == "__main__":
    main()
