"""Pairs per second of the training step, against the same network and loss in plain eager fp32 NCHW.

The plain form is timed first with the default allocator, because keeping freed memory cannot be undone. Then both forms are
timed interleaved, with freed memory kept.
"""

import argparse
import copy
from collections.abc import Callable

import numpy as np
import torch

from bench.measure import interleaved, ratio, write_results
from csametric.cli.tables import print_table
from csametric.data.sampling import PairBatch
from csametric.inference.patches import build_descriptor
from csametric.losses.hardnet import hardnet_loss
from csametric.runs.experiment import DescriptorSettings
from csametric.runs.precision import Precision, choose_precision
from csametric.training.descriptor_task import batch_loss
from csametric.training.memory import keep_freed_memory

CPU = torch.device("cpu")


def training_step(model: torch.nn.Module, batch: PairBatch, precision: Precision) -> Callable[[], None]:
    """Return a function that runs forward and backward of a batch."""

    def step() -> None:
        batch_loss(model, batch, hardnet_loss, CPU, precision).backward()
        model.zero_grad()

    return step


def contenders(attention: str, batch: PairBatch, precision: Precision) -> dict[str, Callable[[], None]]:
    """Return the step of the same network in plain fp32 NCHW, and as the training loop runs it."""
    model = build_descriptor(DescriptorSettings(attention=attention))  # type: ignore[arg-type]
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    return {
        "plain": training_step(plain, batch, Precision("fp32", "asked for")),
        "ours": training_step(model, batch, precision),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=512, help="pairs per step")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    batch = PairBatch(np.arange(arguments.batch), rng.integers(0, 256, (2, arguments.batch, 32, 32), dtype=np.uint8))
    precision = choose_precision("auto", CPU)
    names = ("none", "sa", "csa")
    calls = {name: contenders(name, batch, precision) for name in names}
    plain = {name: interleaved({"plain": calls[name]["plain"]}, arguments.rounds, warm_up=1)["plain"] for name in names}
    keep_freed_memory()
    kept = {name: interleaved(calls[name], arguments.rounds, warm_up=1) for name in names}
    seconds = {
        name: {"plain": plain[name], "plain, memory kept": kept[name]["plain"], "ours": kept[name]["ours"]} for name in names
    }
    text = [
        [
            name,
            *(f"{arguments.batch / np.median(times):.0f}" for times in seconds[name].values()),
            f"{np.median(seconds[name]['plain']) / np.median(seconds[name]['ours']):.2f}",
            "{:.2f} ({:.2f}-{:.2f})".format(*ratio(seconds[name], "plain, memory kept", "ours")),
        ]
        for name in names
    ]
    header = [
        "attention",
        "plain fp32 NCHW",
        "plain, memory kept",
        f"ours ({precision.name}, channels_last)",
        "over plain",
        "over plain, memory kept",
    ]
    print_table(f"pairs per second, batch {arguments.batch}", header, text)
    print(f"results: {write_results('training', [{'attention': name, **seconds[name]} for name in names])}")


if __name__ == "__main__":
    main()
