"""Speed in the paper's Table 6: images per second of PCB, PCB + SA and PCB + CSA in 1 to 8 groups, inference and training.

ResNet-50 at 384 x 128, alpha not 0, channels_last, all arms interleaved; fp32 and batch 8 on a CPU, bf16 and batch 64 on a GPU.
On a GPU every step is replayed from a CUDA graph, so that the time is the GPU's and not Python's; `--eager` launches it from
Python. The table shows ratios to PCB beside the paper's. `python -m bench.memory` measures the memory.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.measure import RESULTS, best_device, graphed, interleaved, middle, ratio, write_results
from bench.memory import ARMS, paper_values
from csametric import PCB
from csametric.cli.tables import print_table
from csametric.losses.parts import parts_loss
from csametric.training.memory import keep_freed_memory

PAPER = paper_values("images/s")
IDS = 751


def lower_precision(device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def inference_call(model: PCB, images: Tensor) -> Callable[[], None]:
    """Return a function that runs a forward in evaluation mode, without a graph."""
    model.eval()

    @torch.inference_mode()
    def call() -> None:
        with lower_precision(images.device):
            model(images)

    return call


def training_call(model: PCB, images: Tensor) -> Callable[[], None]:
    """Return a function that runs a forward, the loss of the parts, and a backward."""
    model.train()
    ids = torch.arange(len(images), device=images.device) % IDS

    def call() -> None:
        model.zero_grad(set_to_none=True)
        with lower_precision(images.device):
            out = model(images)
        parts_loss(out.logits, out.auxiliary, ids).backward()

    return call


CALLS = {"inference": inference_call, "training": training_call}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=0, help="images; by default 64 on a GPU, 8 on a CPU")
    parser.add_argument("--eager", action="store_true", help="on a GPU: launch every step from Python")
    parser.add_argument("--only", choices=CALLS, help="measure only inference, or only training")
    arguments, device = parser.parse_args(), best_device()
    batch = arguments.batch or (64 if device.type == "cuda" else 8)
    keep_freed_memory()
    images = torch.randn(batch, 3, 384, 128, device=device).to(memory_format=torch.channels_last)
    results = []
    for what in [arguments.only] if arguments.only else CALLS:
        calls = {name: make_call(what, name, images) for name in ARMS}
        if images.is_cuda and not arguments.eager:
            calls = graphed(calls)
        seconds = interleaved(calls, arguments.rounds)
        rows = []
        for name, times in seconds.items():
            median, lower, upper = ratio(seconds, "PCB", name)
            rate = batch / middle(times)
            rows.append([name, f"{rate:.1f}", f"{median:.3f} ({lower:.3f}-{upper:.3f})", f"{PAPER[name] / PAPER['PCB']:.2f}"])
            results.append({"what": what, "arm": name, "batch": batch, "seconds": times})
        print_table(f"{what}, batch {batch}, {device.type}", ["model", "images/s", "of PCB", "paper, of PCB"], rows)
    print(f"results: {write_results('model', results, arguments.results)}")


def make_call(what: str, name: str, images: Tensor) -> Callable[[], None]:
    torch.manual_seed(0)
    model = PCB(num_ids=IDS, deep_supervision=False, alpha=0.5, **ARMS[name])  # type: ignore[arg-type]
    model.to(device=images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return CALLS[what](model, images)


if __name__ == "__main__":
    main()
