"""The arithmetic that a run uses, fp32 or bf16, and why."""

from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch

_FAST_BF16 = ("amx_bf16", "avx512_bf16", "bf16")


class Precision(NamedTuple):
    """An arithmetic and the reason for it."""

    name: str  # "bf16" or "fp32"
    reason: str


def choose_precision(setting: str, device: torch.device) -> Precision:
    """The precision of a setting: "auto" takes bf16 on GPUs and processors with bf16 units (AMX, AVX-512 BF16, Arm BF16).

    Examples:
        >>> choose_precision("fp32", torch.device("cpu"))
        Precision(name='fp32', reason='from the settings')
    """
    if setting != "auto":
        return Precision(setting, "from the settings")
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision("bf16" if fast else "fp32", f"the GPU {'has' if fast else 'lacks'} bf16 units")
    if device.type != "cpu":
        return Precision("fp32", f"bf16 has not been measured on {device.type}")
    units = [unit for unit in _FAST_BF16 if torch.cpu.get_capabilities().get(unit)]
    if units:
        return Precision("bf16", f"the processor has {units[0]}")
    return Precision("fp32", "the processor has no bf16 units")


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """A context with bf16 autocast, on if the precision is bf16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision.name == "bf16")
