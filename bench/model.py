"""PCB + CSA against PCB on ResNet-50 at 384 x 128: images per second forward, fp32, alpha not 0, interleaved."""

import argparse
from collections.abc import Callable

import torch

from bench.measure import interleaved, ratio, write_results
from csametric import PCB
from csametric.cli.tables import print_table
from csametric.training.memory import keep_freed_memory

BATCH = 8
ARMS = {"PCB": None, "PCB + CSA, G = 2": "csa"}


def inference_call(attention: str | None, images: torch.Tensor) -> Callable[[], None]:
    """A forward of a model with that attention, supervision dropped as at inference."""
    torch.manual_seed(0)
    model = PCB(num_ids=751, attention=attention, alpha=0.5).eval().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def call() -> None:
        model(images)

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    keep_freed_memory()
    images = torch.randn(BATCH, 3, 384, 128).to(memory_format=torch.channels_last)
    seconds = interleaved({name: inference_call(attention, images) for name, attention in ARMS.items()}, arguments.rounds)
    rows = []
    for name, each in seconds.items():
        median, lower, upper = ratio(seconds, "PCB", name)
        rows.append([name, f"{BATCH / sorted(each)[len(each) // 2]:.1f}", f"{median:.3f} ({lower:.3f}-{upper:.3f})"])
    print_table(f"forward, batch {BATCH}, {torch.get_num_threads()} threads", ["model", "images/s", "of PCB"], rows)
    print(f"written to {write_results('model', [{'arm': name, 'seconds': each} for name, each in seconds.items()])}")


if __name__ == "__main__":
    main()
