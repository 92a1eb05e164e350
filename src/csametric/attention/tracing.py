"""Who runs a forward: Python itself, or something that traces or transforms it."""

import torch
from torch.autograd import forward_ad


def is_eager() -> bool:
    """Whether Python runs each forward: not while a compiler, a tracer or a transform does."""
    return not (torch.compiler.is_compiling() or what_needs_plain_operators())


def is_recorded() -> bool:
    """Whether torch.jit.trace records this forward; shapes are then tensors, which Python should not compare."""
    return torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


def is_recomputing() -> bool:
    """Whether a backward runs this forward, as activation checkpointing does."""
    return is_eager() and torch._C._current_graph_task_id() != -1


def what_needs_plain_operators() -> str:
    """What traces or transforms the forward and knows only PyTorch's own operators, as a sentence; "" if nothing does.

    `torch.compile` is none of them: it knows the fused kernels.
    """
    if torch.compiler.is_compiling():
        return ""
    if is_recorded():
        return "torch.jit.trace records plain operators only"
    if torch._C._are_functorch_transforms_active():
        return "torch.func transforms plain operators only"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation needs plain operators"
    return ""
