"""Every attention layer at the three ResNet-50 shapes: forward, and forward + backward, all interleaved in the same run.

"literal" is `attention.reference`: two convolutions, two softmaxes, (V B^T) W; never a dense N x N map. A pass is the time of
reading or writing the feature map once, at the copy bandwidth measured in the same rounds. fp32 and batch 8 on a CPU; on a GPU
batch 64, and bf16 beside fp32 with `--types fp32,bf16`.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.measure import RESULTS, best_device, interleaved, ratio, write_results
from csametric import CompressedSelfAttention, SelfAttention
from csametric.attention.catalogue import PEERS, peer
from csametric.cli.tables import print_table
from csametric.training.memory import keep_freed_memory

SHAPES = ((256, 96, 32), (512, 48, 16), (1024, 24, 8))
GROUPS = (1, 2, 8)
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COPY, LITERAL, CSA = "copy", "literal, G = {}", "CSA, G = {}"


def layers(channels: int, peers: bool) -> dict[str, nn.Module]:
    """Each layer by its name; literal and reordered ones share their weights."""
    made: dict[str, nn.Module] = {}
    for groups in GROUPS:
        layer = CompressedSelfAttention(channels, groups=groups, alpha=0.5)
        literal = CompressedSelfAttention(channels, groups=groups, backend="reference")
        literal.load_state_dict(layer.state_dict())
        made[LITERAL.format(groups)], made[CSA.format(groups)] = literal, layer
    if peers:
        made["SA"] = SelfAttention(channels, alpha=0.5)
        made.update({name: peer(name)(channels) for name in PEERS})
    return made


def training_call(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward and backward, gradients thrown away."""
    x = x.detach().requires_grad_()
    gradient = torch.randn_like(x)
    wanted = [x, *layer.parameters()]

    def call() -> None:
        torch.autograd.grad(layer(x), wanted, gradient)

    return call


def inference_call(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward without a graph, in evaluation."""
    layer.eval()

    @torch.inference_mode()
    def call() -> None:
        layer(x)

    return call


CALLS = {"forward": inference_call, "forward + backward": training_call}


def measure(shape: tuple[int, int, int], what: str, name: str, memory_format: str, arguments: Any) -> list[dict[str, Any]]:
    """Seconds of every layer, of a copy, and what follows from them."""
    torch.manual_seed(0)
    device, dtype = best_device(), TYPES[name]
    x = torch.randn(arguments.batch, *shape, device=device, dtype=dtype).to(memory_format=FORMATS[memory_format])
    target = torch.empty_like(x)
    made = layers(shape[0], not arguments.no_peers)
    calls = {key: CALLS[what](layer.to(device=device, dtype=dtype), x) for key, layer in made.items()}
    seconds = interleaved({COPY: lambda: target.copy_(x), **calls}, arguments.rounds)
    case = {"shape": "x".join(map(str, shape)), "what": what, "type": name, "format": memory_format}
    return [case | {"layer": key} | compare(seconds, key) for key in calls]


def compare(seconds: dict[str, list[float]], key: str) -> dict[str, Any]:
    """Milliseconds, passes over the feature map, and paired ratios with their quartiles."""
    literal = LITERAL.format(key[-1]) if key.startswith("CSA") else None
    return {
        "ms": 1e3 * sorted(seconds[key])[len(seconds[key]) // 2],
        "passes": 2 * ratio(seconds, key, COPY)[0],
        "literal / it": ratio(seconds, literal, key) if literal else None,
        "it / CSA, G = 1": ratio(seconds, key, CSA.format(1)),
        "seconds": seconds[key],
    }


def show(rows: list[dict[str, Any]]) -> None:
    text = [
        [row["layer"], f"{row['ms']:.2f}", f"{row['passes']:.1f}", *map(_ratio, (row["literal / it"], row["it / CSA, G = 1"]))]
        for row in rows
    ]
    title = ", ".join(rows[0][key] for key in ("shape", "what", "type", "format"))
    print_table(title, ["layer", "ms", "passes", "literal / it", "it / CSA, G = 1"], text)


def _ratio(value: tuple[float, float, float] | None) -> str:
    return "" if value is None else f"{value[0]:.2f} ({value[1]:.2f}-{value[2]:.2f})"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Milliseconds of every layer at every shape, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    figure, axes = pyplot.subplots(1, len(shapes), figsize=(4.2 * len(shapes), 5), sharey=True, layout="constrained")
    for axis, shape in zip(axes.flat if len(shapes) > 1 else [axes], shapes, strict=True):
        here = [row for row in rows if row["shape"] == shape]
        for what, colour in (("forward + backward", "#b8c4d6"), ("forward", "#1f4e9c")):
            bars = [row for row in here if row["what"] == what]
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
    parser.add_argument("--types", default="fp32", help="of fp32, bf16, fp16, with commas between")
    parser.add_argument("--formats", default="NCHW", help="of NCHW, channels_last, with commas between")
    parser.add_argument("--no-peers", action="store_true", help="CSA and its literal form only")
    arguments = parser.parse_args()
    keep_freed_memory()  # as training does
    everything = []
    for name in arguments.types.split(","):
        for memory_format in arguments.formats.split(","):
            for shape in SHAPES:
                for what in CALLS:
                    rows = measure(shape, what, name, memory_format, arguments)
                    show(rows)
                    everything += rows
    picture = RESULTS / "attention.png"
    print(f"written to {write_results('attention', everything)}")
    draw(
        [row for row in everything if (row["type"], row["format"]) == (everything[0]["type"], everything[0]["format"])], picture
    )
    print(f"drawn in {picture}")


if __name__ == "__main__":
    main()
