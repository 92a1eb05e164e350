"""The reordered layer against the literal form in batched operators, fp32, batch 8, at the three ResNet-50 shapes.

The literal form is `attention.reference`: two convolutions, two softmaxes, (V B^T) W; never a dense N x N map. Both are
timed interleaved in the same run, forward and forward + backward, in both memory formats, with freed memory kept.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from bench.measure import interleaved, ratio, write_results
from csametric import CompressedSelfAttention
from csametric.cli.tables import print_table
from csametric.training.memory import keep_freed_memory

SHAPES = ((256, 96, 32), (512, 48, 16), (1024, 24, 8))
GROUPS = (1, 2, 8)
BATCH = 8
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


def contenders(shape: tuple[int, int, int], groups: int, backward: bool) -> dict[str, Callable[[], None]]:
    """Literal and reordered layers with the same weights, one call each, by path and memory format."""
    torch.manual_seed(0)
    layer = CompressedSelfAttention(shape[0], groups=groups, alpha=0.5)
    calls = {}
    for path in ("reference", "reordered"):
        twin = CompressedSelfAttention(shape[0], groups=groups, backend=path)
        twin.load_state_dict(layer.state_dict())
        for name, memory_format in FORMATS.items():
            x = torch.randn(BATCH, *shape).to(memory_format=memory_format).requires_grad_(backward)
            calls[f"{path} {name}"] = training_call(twin, x) if backward else inference_call(twin, x)
    return calls


def training_call(layer: torch.nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward and backward, gradients thrown away."""
    gradient = torch.randn_like(x)

    def call() -> None:
        torch.autograd.grad(layer(x), [x, *layer.parameters()], gradient)

    return call


def inference_call(layer: torch.nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward without a graph."""

    @torch.inference_mode()
    def call() -> None:
        layer(x)

    return call


def main() -> None:
    keep_freed_memory()  # as training does
    rows = []
    for shape in SHAPES:
        for groups in GROUPS:
            for backward in (False, True):
                seconds = interleaved(contenders(shape, groups, backward))
                against_literal = ratio(seconds, "reference NCHW", "reordered NCHW")
                between_formats = ratio(seconds, "reordered NHWC", "reordered NCHW")
                rows.append(
                    {
                        "shape": shape,
                        "groups": groups,
                        "what": "forward + backward" if backward else "forward",
                        "literal over reordered": against_literal,
                        "literal over reordered, both NHWC": ratio(seconds, "reference NHWC", "reordered NHWC"),
                        "NHWC over NCHW": between_formats,
                        "seconds": seconds,
                    }
                )
    columns = ["shape", "groups", "what", "literal over reordered", "literal over reordered, both NHWC", "NHWC over NCHW"]
    text = [[_cell(row[column]) for column in columns] for row in rows]
    title = f"median (quartiles) of paired ratios, fp32, batch {BATCH}, {torch.get_num_threads()} threads"
    print_table(title, columns, text)
    print(f"written to {write_results('attention', rows)}")


def _cell(value: object) -> str:
    if isinstance(value, tuple) and isinstance(value[0], float):
        return f"{value[0]:.2f} ({value[1]:.2f}-{value[2]:.2f})"
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    main()
