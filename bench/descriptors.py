"""Patches of 32 x 32 described per second: HardNet and HardNet + CSA against kornia's HardNet in eager fp32, interleaved."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from bench.measure import best_device, interleaved, middle, ratio, write_results
from csametric.cli.tables import print_table
from csametric.inference.patches import Describe, build_descriptor, make_embedder
from csametric.models.l2net import fold_l2net
from csametric.recipes import find_recipe
from csametric.runs.experiment import PatchExperiment
from csametric.runs.precision import Precision, choose_precision
from csametric.training.memory import keep_freed_memory

KORNIA = "kornia HardNet, eager fp32"


def _describe(recipe: str, device: torch.device, precision: Precision) -> Describe:
    experiment = find_recipe(recipe)
    assert isinstance(experiment, PatchExperiment)
    return make_embedder(fold_l2net(build_descriptor(experiment.model)).to(device), device, precision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--patches", type=int, default=4096)
    arguments = parser.parse_args()
    from kornia.feature import HardNet

    keep_freed_memory()
    device = best_device()
    precision = choose_precision("auto", device)
    patches = np.random.default_rng(0).integers(0, 256, (arguments.patches, 32, 32)).astype(np.uint8)
    kornia_model = HardNet(pretrained=False).eval().to(device)
    tensor = torch.from_numpy(patches)[:, None].float().to(device)

    @torch.inference_mode()
    def describe_with_kornia() -> None:
        for batch in tensor.split(512):
            kornia_model(batch)

    ours = {f"{recipe}, {precision.name}": _describe(recipe, device, precision) for recipe in ("hardnet", "hardnet_csa")}
    calls: dict[str, Callable[[], Any]] = {
        KORNIA: describe_with_kornia,
        **{name: partial(describe, patches) for name, describe in ours.items()},
    }
    seconds = interleaved(calls, arguments.rounds)
    rows = [
        {
            "what": name,
            "rate": arguments.patches / middle(seconds[name]),
            "of": ratio(seconds, KORNIA, name),
        }
        for name in calls
    ]
    text = [[row["what"], f"{row['rate']:,.0f}", "{:.2f} ({:.2f} to {:.2f})".format(*row["of"])] for row in rows]
    print_table("descriptors", ["", "patches per second", "times kornia's"], text)
    print(f"results: {write_results('descriptors', rows)}")


if __name__ == "__main__":
    main()
