"""Compiles every fused kernel as it would be launched, for GPUs that need not be there.

Command: python -m tests.attention.compile_for_gpus, without TRITON_INTERPRET=1. The launches of a forward and a backward are
recorded instead of run, then compiled for each target; prints kernel, case, target and shared memory in bytes as JSON lines.
"""

import json
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from csametric.attention import fused, kernels

KERNELS = ("gather", "join", "scatter", "gather_gradient", "input_gradient")
TARGETS = (89, 90)


class Case(NamedTuple):
    """A launch: of an input (2, channels, height, 8) of a type."""

    dtype: torch.dtype
    channels: int
    groups: int
    maps: int
    channels_last: bool = False
    height: int = 24
    tf32: bool = False
    flat: bool = True  # False: an input whose rows are not one behind the other


CASES = (
    Case(torch.bfloat16, 1024, 1, 32),
    Case(torch.bfloat16, 1024, 1, 8, channels_last=True),
    Case(torch.float16, 256, 2, 128, channels_last=True),
    Case(torch.float32, 256, 2, 128),
    Case(torch.bfloat16, 256, 2, 16, height=2),  # one split
    Case(torch.bfloat16, 512, 2, 64),
    Case(torch.float16, 512, 2, 64, channels_last=True, flat=False),
    Case(torch.float32, 512, 2, 64, tf32=True),
    Case(torch.float32, 256, 1, 16, tf32=True, flat=False),
)
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}


class Recorder:
    """Stands for a kernel; keeps what it is launched with."""

    def __init__(self, kernel: Any, launches: list[Any]) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments, **options: self.launches.append((self.kernel, arguments, options))


def launches_of(case: Case) -> list[Any]:
    launches: list[Any] = []
    dtype, channels, groups, maps = case[:4]
    originals = {name: getattr(kernels, name) for name in KERNELS}
    torch.backends.cuda.matmul.fp32_precision = "tf32" if case.tf32 else "ieee"
    x = torch.randn(2, channels, case.height, 8 if case.flat else 16, dtype=dtype)
    x = x.to(memory_format=torch.channels_last if case.channels_last else torch.contiguous_format)[..., :8]
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
    for case in CASES:
        for kernel, arguments, options in launches_of(case):
            for target in TARGETS:
                compiled = compile_launch(kernel, arguments, options, target)
                row = {"kernel": kernel.__name__, "case": str(case), "target": target, "shared": compiled.metadata.shared}
                print(json.dumps(row), flush=True)
