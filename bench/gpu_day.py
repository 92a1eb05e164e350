"""What to measure when a GPU is at hand: first the kernels, then training. Each takes at most nine minutes on an H100.

`python -m bench.gpu_day kernels` runs the tests of the fused kernels, their accuracy, torch.compile from a cold start, and the
benchmarks. `python -m bench.gpu_day training --data cuhk03-detected:PATH` trains PCB, PCB + supervision, PCB + SA and PCB + CSA
side by side until the time is up; the same command goes on from the last checkpoint. Everything goes to one folder: a log per
command and `gpu_day.json` with exit codes and seconds. `--rehearse` runs every command at a small size, on a CPU too.
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


def kernel_commands(results: Path, rehearse: bool) -> dict[str, list[str]]:
    """Name -> command, in the order of risk: what would be wrong first, then what would be slow."""
    bench = [sys.executable, "-m"]
    out = ["--results", str(results)]
    small = ["--rounds", "2"] if rehearse else []
    place = ("cpu", "aot_eager") if rehearse else ("cuda", "inductor")
    chosen = ["-k", "empty_batch or autocast"] if rehearse else []
    return {
        "tests": [*bench, "pytest", "-q", "tests/attention/test_fused.py", *chosen],
        "accuracy": [*bench, "bench.kernels", "--profile", *out],
        "compile": [sys.executable, "-W", "error:Dynamo", "-c", f"DEVICE, BACKEND = {place}\n{COMPILE_COLD}"],
        "memory": [*bench, "bench.memory", *out, *(["--batch", "2"] if rehearse else [])],
        "model": [*bench, "bench.model", *out, *small, *(["--batch", "1", "--only", "inference"] if rehearse else [])],
        "attention": [*bench, "bench.attention", *out, *small]
        + (["--batch", "1", "--no-peers"] if rehearse else ["--types", "bf16,fp32", "--formats", "NCHW,channels_last"]),
        "growth": [*bench, "bench.growth", *out, *small],
    }


def training_command(recipe: str, data: str, epochs: int, rehearse: bool) -> list[str]:
    """The command that trains or goes on with one arm: 384 x 128, batch 64, bf16."""
    settings = {"epochs": epochs, "batch_size": 64, "precision": "bf16", "data.height": 384, "data.width": 128}
    if rehearse:
        settings |= {"epochs": 1, "batch_size": 8, "data.height": 64, "data.width": 32, "model.pretrained": "none"}
    overrides = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return [sys.executable, "-m", "csametric", "train", recipe, "--data", data, *overrides]


def run_in_turn(commands: dict[str, list[str]], results: Path, deadline: float) -> list[dict[str, Any]]:
    """Run the commands one after the other until the deadline; each writes its log."""
    rows = []
    for name, command in commands.items():
        row = {"name": name, **wait_for(start(command, results / f"{name}.log", ROOT), deadline)}
        print(f"{name}: exit {row['exit']}, {row['seconds']:.0f} s, log {results / f'{name}.log'}", flush=True)
        rows.append(row)
    return rows


def run_side_by_side(commands: dict[str, list[str]], results: Path, deadline: float) -> list[dict[str, Any]]:
    """Run the commands at once, in the results' folder, until the deadline."""
    processes = {name: start(command, results / f"{name}.log", results) for name, command in commands.items()}
    rows = [{"name": name, **wait_for(process, deadline)} for name, process in processes.items()]
    for row in rows:
        print(f"{row['name']}: exit {row['exit']}, {row['seconds']:.0f} s, log {results / row['name']}.log", flush=True)
    return rows


def start(command: Sequence[str], log: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start a command whose output goes to the end of a log."""
    paths = os.pathsep.join(filter(None, [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=folder, env=os.environ | {"PYTHONPATH": paths}
        )


def wait_for(process: subprocess.Popen[bytes], deadline: float) -> dict[str, Any]:
    """Wait until a command ends, or terminate it at the deadline; its exit code and seconds."""
    started = time.monotonic()
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
    return {"exit": process.returncode, "seconds": time.monotonic() - started}


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
        rows = run_in_turn(kernel_commands(results, arguments.rehearse), results, deadline)
    else:
        commands = {arm: training_command(arm, arguments.data, arguments.epochs, arguments.rehearse) for arm in ARMS}
        rows = run_side_by_side(commands, results, deadline)
    (results / f"{arguments.part}.json").write_text(json.dumps(rows, indent=1))
    sys.exit(any(row["exit"] for row in rows))


if __name__ == "__main__":
    main()
