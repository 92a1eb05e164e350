"""Time of every attention layer at the three ResNet-50 shapes, forward and forward + backward, interleaved in one run.

"literal" is `attention.reference`: two convolutions, two softmaxes, (V B^T) W; it never forms a dense N x N map. A pass is the
time to read or write the feature map once, at the copy bandwidth measured in the same rounds. The defaults are fp32, batch 8 on
a CPU and batch 64 on a GPU; `--types fp32,bf16` adds bf16. On a GPU every layer is replayed from a CUDA graph, ten times per
measurement; `--eager` times calls from Python instead.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.measure import RESULTS, best_device, graphed, interleaved, middle, ratio, write_results
from csametric import CompressedSelfAttention, SelfAttention
from csametric.attention.catalogue import PEERS, peer
from csametric.cli.tables import print_table
from csametric.training.memory import keep_freed_memory

SHAPES = ((256, 96, 32), (512, 48, 16), (1024, 24, 8))
GROUPS = (1, 2, 8)
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COPY, LITERAL, CSA = "copy", "literal, G = {}", "CSA, G = {}"
CALLS_ON_A_GPU = 10  # per measurement: one call takes down to 20 microseconds


def make_layers(channels: int, with_peers: bool) -> dict[str, nn.Module]:
    """Return the layers by name; the literal and the reordered one of a group count share their weights."""
    layers: dict[str, nn.Module] = {}
    for groups in GROUPS:
        layer = CompressedSelfAttention(channels, groups=groups, alpha=0.5)
        literal = CompressedSelfAttention(channels, groups=groups, backend="reference")
        literal.load_state_dict(layer.state_dict())
        layers[LITERAL.format(groups)], layers[CSA.format(groups)] = literal, layer
    if with_peers:
        layers["SA"] = SelfAttention(channels, alpha=0.5)
        layers.update({name: peer(name)(channels) for name in PEERS})
    return layers


def training_call(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a function that runs forward and backward and discards the gradients."""
    x = x.detach().requires_grad_()
    gradient = torch.randn_like(x)
    leaves = [x, *layer.parameters()]

    def call() -> None:
        torch.autograd.grad(layer(x), leaves, gradient)

    return call


def inference_call(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a function that runs forward in evaluation mode, without a graph."""
    layer.eval()

    @torch.inference_mode()
    def call() -> None:
        layer(x)

    return call


CALLS = {"forward": inference_call, "forward + backward": training_call}


def measure(
    shape: tuple[int, int, int], what: str, dtype_name: str, memory_format: str, arguments: Any
) -> list[dict[str, Any]]:
    """Time every layer and a copy of the feature map at one shape; one row per layer."""
    torch.manual_seed(0)
    device, dtype = best_device(), TYPES[dtype_name]
    x = torch.randn(arguments.batch, *shape, device=device, dtype=dtype).to(memory_format=FORMATS[memory_format])
    target = torch.empty_like(x)
    layers = make_layers(shape[0], not arguments.only_csa)
    calls = {key: CALLS[what](layer.to(device=device, dtype=dtype), x) for key, layer in layers.items()}
    contenders = {COPY: lambda: target.copy_(x), **calls}
    if x.is_cuda and not arguments.eager:
        contenders = graphed(contenders)
    seconds = interleaved(contenders, arguments.rounds, calls=CALLS_ON_A_GPU if x.is_cuda else 1)
    case = {"shape": "x".join(map(str, shape)), "what": what, "type": dtype_name, "format": memory_format}
    return [case | {"layer": key} | compare(seconds, key) for key in calls]


def compare(seconds: dict[str, list[float]], key: str) -> dict[str, Any]:
    """Return milliseconds, passes over the feature map, and paired ratios with their quartiles."""
    literal = LITERAL.format(key[-1]) if key.startswith("CSA") else None
    return {
        "ms": 1e3 * middle(seconds[key]),
        "passes": 2 * ratio(seconds, key, COPY)[0],  # a copy is two passes
        "literal / it": ratio(seconds, literal, key) if literal else None,
        "it / CSA, G = 1": ratio(seconds, key, CSA.format(1)),
        "seconds": seconds[key],
    }


def show(rows: list[dict[str, Any]]) -> None:
    text = [
        [
            row["layer"],
            f"{row['ms']:.2f}",
            f"{row['passes']:.1f}",
            _format_ratio(row["literal / it"]),
            _format_ratio(row["it / CSA, G = 1"]),
        ]
        for row in rows
    ]
    title = ", ".join(rows[0][key] for key in ("shape", "what", "type", "format"))
    print_table(title, ["layer", "ms", "passes", "literal / it", "it / CSA, G = 1"], text)


def _format_ratio(value: tuple[float, float, float] | None) -> str:
    return "" if value is None else f"{value[0]:.2f} ({value[1]:.2f}-{value[2]:.2f})"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the milliseconds of every layer at every shape on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    figure, axes = pyplot.subplots(1, len(shapes), figsize=(4.2 * len(shapes), 5), sharey=True, layout="constrained")
    for axis, shape in zip(axes.flat if len(shapes) > 1 else [axes], shapes, strict=True):
        rows_of_shape = [row for row in rows if row["shape"] == shape]
        for what, colour in (("forward + backward", "#b8c4d6"), ("forward", "#1f4e9c")):
            bars = [row for row in rows_of_shape if row["what"] == what]
            axis.barh([row["layer"] for row in bars], [row["ms"] for row in bars], color=colour, label=what)
        axis.set(xscale="log", title=shape, xlabel="ms")
        axis.invert_yaxis()
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=64 if best_device().type == "cuda" else 8)
    parser.add_argument("--types", default="fp32", help="fp32, bf16 or fp16; several separated by commas")
    parser.add_argument("--formats", default="NCHW", help="NCHW or channels_last; several separated by commas")
    parser.add_argument("--only-csa", action="store_true", help="measure only CSA and its literal form")
    parser.add_argument("--eager", action="store_true", help="on a GPU: time calls from Python, not replays of CUDA graphs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file and the picture")
    arguments = parser.parse_args()
    keep_freed_memory()  # as training does
    all_rows = []
    for dtype_name in arguments.types.split(","):
        for memory_format in arguments.formats.split(","):
            for shape in SHAPES:
                for what in CALLS:
                    rows = measure(shape, what, dtype_name, memory_format, arguments)
                    show(rows)
                    all_rows += rows
    picture = arguments.results / "attention.png"
    print(f"results: {write_results('attention', all_rows, arguments.results)}")
    first = all_rows[0]
    draw([row for row in all_rows if row["type"] == first["type"] and row["format"] == first["format"]], picture)
    print(f"picture: {picture}")


if __name__ == "__main__":
    main()
