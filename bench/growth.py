"""Time by number of positions at 256 channels: CSA grows linearly, SA with the square.

One image, forward, 192 to 49,152 positions. SA stops at 12,288, where its map alone takes 600 MB in fp32.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from bench.attention import CALLS_ON_A_GPU, inference_call
from bench.measure import RESULTS, best_device, graphed, interleaved, middle, write_results
from csametric import CompressedSelfAttention, SelfAttention
from csametric.cli.tables import print_table
from csametric.training.memory import keep_freed_memory

CHANNELS = 256
HEIGHTS = (24, 48, 96, 192, 384, 768, 1536, 6144)
WIDTH = 8
MOST_FOR_SA = 12_288


def measure(height: int, rounds: int) -> dict[str, Any]:
    """Time CSA in 1 and 2 groups, and SA if its map fits; one row, in milliseconds."""
    torch.manual_seed(0)
    device, positions = best_device(), height * WIDTH
    x = torch.randn(1, CHANNELS, height, WIDTH, device=device)
    layers: dict[str, torch.nn.Module] = {
        f"CSA, G = {groups}": CompressedSelfAttention(CHANNELS, groups=groups, alpha=0.5) for groups in (1, 2)
    }
    if positions <= MOST_FOR_SA:
        layers["SA"] = SelfAttention(CHANNELS, alpha=0.5)
    calls = {name: inference_call(layer.to(device), x) for name, layer in layers.items()}
    if x.is_cuda:
        calls = graphed(calls)
    seconds = interleaved(calls, rounds, calls=CALLS_ON_A_GPU if x.is_cuda else 1)
    return {"positions": positions} | {name: 1e3 * middle(times) for name, times in seconds.items()}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the rows with both axes logarithmic: slope 1 is linear growth, slope 2 quadratic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name, colour in (("CSA, G = 1", "#1f4e9c"), ("CSA, G = 2", "#6a93d1"), ("SA", "#b3472f")):
        rows_of_layer = [row for row in rows if name in row]
        axis.plot(
            [row["positions"] for row in rows_of_layer], [row[name] for row in rows_of_layer], "o-", color=colour, label=name
        )
    axis.set(xscale="log", yscale="log", xlabel="positions", ylabel="ms, forward, one image of 256 channels")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file and the picture")
    arguments = parser.parse_args()
    keep_freed_memory()
    rows = [measure(height, arguments.rounds) for height in HEIGHTS]
    columns = ["positions", "CSA, G = 1", "CSA, G = 2", "SA"]
    text = [[str(row["positions"]), *(f"{row[name]:.2f}" if name in row else "" for name in columns[1:])] for row in rows]
    print_table(f"ms, forward, one image, {best_device().type}", columns, text)
    print(f"results: {write_results('growth', rows, arguments.results)}")
    draw(rows, arguments.results / "growth.png")
    print(f"picture: {arguments.results / 'growth.png'}")


if __name__ == "__main__":
    main()
