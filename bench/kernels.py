"""Accuracy of the fused kernels on a GPU: the error of outputs and gradients against fp64, beside that of plain operators.

Inputs are as after a ReLU, with a mean; 8 to 128 maps, both memory formats, bf16, fp16, fp32 and TF32. A ratio above 1 means
that the kernels err more than the plain operators do in the same type. A row is "worse" where an error is more than twice
that of the plain operators and more than eight units in the last place. `--profile` adds the time of every kernel of a training
step at 1024 x 24 x 8. Without a GPU it runs under Triton's interpreter (TRITON_INTERPRET=1), at small sizes.
"""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.attention import CALLS, FORMATS
from bench.measure import RESULTS, best_device, write_results
from csametric import CompressedSelfAttention
from csametric.attention import dispatch
from csametric.attention.reference import CSAWeights
from csametric.cli.tables import print_table

MAPS = (8, 16, 33, 64, 128)
ARITHMETIC = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "tf32": torch.float32}
UNITS = {"bf16": 2.0**-8, "fp16": 2.0**-11, "fp32": 2.0**-24, "tf32": 2.0**-11}  # half of the last place
NAMES = ("output", "input", "logits", "value", "alpha")
MOST = 2.0  # times the error of the plain operators
MOST_UNITS = 8.0
PROCESSES = 6  # on a GPU, because compiling the kernels takes most of the time


def problem(maps: int, on_gpu: bool) -> tuple[Tensor, CSAWeights, Tensor]:
    """Input, weights and output gradient in fp64: features as after a ReLU, two groups."""
    torch.manual_seed(maps)
    images, channels, height, width = (8, 256, 24, 8) if on_gpu else (1, 32, 6, 4)
    per_group, device = channels // 2, best_device()
    x = (torch.randn(images, channels, height, width, dtype=torch.float64) + 0.5).relu()
    logits = torch.randn(2 * maps, per_group, 1, 1, dtype=torch.float64) * per_group**-0.5
    value = torch.randn(channels, per_group, 1, 1, dtype=torch.float64) * per_group**-0.5
    weights = CSAWeights(
        logits.to(device), value.to(device), torch.tensor(0.7, dtype=torch.float64, device=device), None, None, 2
    )
    return x.to(device), weights, torch.randn_like(x).to(device)


def results(form: str, x: Tensor, weights: CSAWeights, gradient: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input, both weights and alpha."""
    tensors = (x, weights.logit_weight, weights.value_weight, weights.alpha)
    x, logits, value, alpha = leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    out = dispatch.compressed_self_attention(form, x, CSAWeights(logits, value, alpha, None, None, weights.groups))
    return [out.detach(), *torch.autograd.grad(out, leaves, gradient)]


def errors(got: list[Tensor], exact: list[Tensor]) -> list[float]:
    """Relative error of every tensor, in the Frobenius norm."""
    return [((a.double() - b).norm() / b.norm()).item() for a, b in zip(got, exact, strict=True)]


def measure(maps: int, arithmetic: str, memory_format: str) -> dict[str, Any]:
    """The errors of the kernels and of plain operators, all from the same rounded input; one row."""
    dtype = ARITHMETIC[arithmetic]
    x, weights, gradient = problem(maps, on_gpu=torch.cuda.is_available())
    x = x.to(dtype).to(memory_format=FORMATS[memory_format])
    weights, gradient = weights.to(dtype), gradient.to(dtype)
    exact = results("reference", x.double(), weights.to(torch.float64), gradient.double())
    torch.backends.cuda.matmul.fp32_precision = "tf32" if arithmetic == "tf32" else "ieee"
    plain, fused = (errors(results(form, x, weights, gradient), exact) for form in ("reordered", "fused"))
    return {"maps": maps, "type": arithmetic, "format": memory_format, "fused": fused, "plain": plain}


def is_worse(row: dict[str, Any]) -> bool:
    """Whether an error is large, both beside that of the plain operators and in units of the type."""
    allowed = MOST_UNITS * UNITS[row["type"]]
    return any(fused > max(MOST * plain, allowed) for fused, plain in zip(row["fused"], row["plain"], strict=True))


def show(rows: list[dict[str, Any]]) -> None:
    text = [
        [str(row["maps"]), row["type"], row["format"]]
        + [f"{fused:.1e} ({fused / max(plain, 1e-12):.2f})" for fused, plain in zip(row["fused"], row["plain"], strict=True)]
        + ["worse" if is_worse(row) else ""]
        for row in rows
    ]
    print_table("relative error (ratio to plain operators)", ["maps", "type", "format", *NAMES, ""], text)


def profile(batch: int = 64, steps: int = 20) -> dict[str, float]:
    """Microseconds of every GPU kernel in a training step of CSA at 1024 x 24 x 8 in bf16, two groups."""
    layer = CompressedSelfAttention(1024, alpha=0.5).cuda().bfloat16()
    x = torch.randn(batch, 1024, 24, 8, device="cuda", dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    step = CALLS["forward + backward"](layer, x)
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    times = {event.key[:60]: event.device_time_total / steps for event in profiler.key_averages() if event.device_time_total}
    return dict(sorted(times.items(), key=lambda item: -item[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--profile", action="store_true", help="also time every kernel of a training step")
    arguments = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    maps, arithmetics = (MAPS, ARITHMETIC) if on_gpu else (MAPS[:2], ("fp16", "fp32"))
    cases = list(product(maps, arithmetics, FORMATS))
    if on_gpu:
        with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
            rows = list(pool.map(measure, *zip(*cases, strict=True)))
    else:
        rows = [measure(*case) for case in cases]
    show(rows)
    if arguments.profile and on_gpu:
        times = profile()
        print_table("GPU kernels of a training step, us", ["kernel", "us"], [[key, f"{us:.1f}"] for key, us in times.items()])
        rows.append({"profile": times})
    print(f"results: {write_results('kernels', rows, arguments.results)}")


if __name__ == "__main__":
    main()
