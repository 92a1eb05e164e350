"""Compiles every fused kernel as it would be launched, for GPUs that need not be there.

Command: python -m tests.attention.compile_for_gpus, without TRITON_INTERPRET=1. The launches of a forward and a backward are
recorded instead of run, then compiled for each target; prints kernel, case, target and shared memory in bytes as JSON lines.
"""

import json
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from csametric.attention import fused, kernels

KERNELS = ("gather", "join", "scatter", "gather_gradient", "input_gradient")
TARGETS = (89, 90)
CASES = (  # type, C, groups, maps, memory format
    ("bfloat16", 1024, 1, 32, torch.contiguous_format),
    ("bfloat16", 1024, 1, 8, torch.channels_last),
    ("float16", 256, 2, 128, torch.channels_last),
    ("float32", 256, 2, 128, torch.contiguous_format),
)
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}


class Recorder:
    """Stands for a kernel; keeps what it is launched with."""

    def __init__(self, kernel: Any, launches: list[Any]) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments, **options: self.launches.append((self.kernel, arguments, options))


def launches_of(dtype: torch.dtype, channels: int, groups: int, maps: int, memory_format: torch.memory_format) -> list[Any]:
    launches: list[Any] = []
    originals = {name: getattr(kernels, name) for name in KERNELS}
    x = torch.randn(2, channels, 24, 8, dtype=dtype).to(memory_format=memory_format)
    logit_weight = torch.randn(groups * maps, channels // groups, 1, 1, dtype=dtype)
    value_weight = torch.randn(channels, channels // groups, 1, 1, dtype=dtype)
    alpha, bias = torch.ones((), dtype=dtype), torch.zeros(groups * maps, dtype=dtype)
    for name, kernel in originals.items():
        setattr(kernels, name, Recorder(kernel, launches))
    try:
        _, means, totals = fused._forward(x, logit_weight, value_weight, alpha, bias, None, groups)
        fused._backward(x, x, means, totals, logit_weight, value_weight, alpha, bias, None, groups)
    finally:
        for name, kernel in originals.items():
            setattr(kernels, name, kernel)
    return launches


def compile_launch(kernel: Any, arguments: tuple[Any, ...], options: dict[str, Any], target: int) -> Any:
    constants = {name: options[name] for name in kernel.arg_names if name in options}
    values = dict(zip([name for name in kernel.arg_names if name not in constants], arguments, strict=True))
    constants |= {name: 1 for name, value in values.items() if not isinstance(value, torch.Tensor) and value == 1}
    signature = {name: "constexpr" if name in constants else kind_of(values[name]) for name in kernel.arg_names}
    attributes = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if name not in constants and (isinstance(values[name], torch.Tensor) or values[name] % 16 == 0)
    }
    constant_places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, constant_places, attributes)
    tuning = {name: options[name] for name in ("num_warps", "num_stages", "enable_fp_fusion") if name in options}
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=tuning)


def kind_of(value: Any) -> str:
    return TYPES[value.dtype] if isinstance(value, torch.Tensor) else "i32"


if __name__ == "__main__":
    fused.interpreted = lambda: False
    for name, channels, groups, maps, memory_format in CASES:
        for kernel, arguments, options in launches_of(getattr(torch, name), channels, groups, maps, memory_format):
            for target in TARGETS:
                compiled = compile_launch(kernel, arguments, options, target)
                case = f"{name}, {channels} channels, {groups} groups, {maps} maps"
                row = {"kernel": kernel.__name__, "case": case, "target": target, "shared": compiled.metadata.shared}
                print(json.dumps(row), flush=True)
