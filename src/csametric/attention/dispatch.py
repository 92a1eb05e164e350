"""The one place that decides which path and form of CSA runs, casts to the input's type, and says what ran and why."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from csametric.attention import eager, reference, reordered
from csametric.attention.reference import CSAWeights
from csametric.attention.tracing import what_needs_plain_operators
from csametric.errors import UserError

Backend = Literal["auto", "reference", "reordered", "fused"]

HAS_TRITON = find_spec("triton") is not None
INTERPRETS = os.environ.get("TRITON_INTERPRET") == "1"


class Choice(NamedTuple):
    """Which path runs, in which form, and why."""

    path: str  # "reference", "reordered" or "fused": the public name
    form: str  # a key of FORMS; "reordered" has two, "eager" with a hand-written backward and "reordered" for tracing
    reason: str  # one sentence


def check_backend(backend: str) -> None:
    """Raise `UserError` if the name is unknown or the path cannot run on this machine; the message says why."""
    if backend not in get_args(Backend):
        raise UserError(f"backend={backend!r} is unknown; use one of {', '.join(get_args(Backend))}")
    if backend == "fused":
        _refuse_fused(_obstacle_on_this_machine())


def choose_path(backend: str, x_NCHW: Tensor, maps: int) -> Choice:
    """The path and form for an input, given a checked backend name.

    Raises:
        UserError: the fused kernels were asked for and cannot run on this input; the message says why.
    """
    if backend == "reference":
        return Choice("reference", "reference", "chosen by name")
    if backend == "reordered":
        return Choice("reordered", _reordered_form(x_NCHW), "chosen by name")
    obstacle = why_not_fused(x_NCHW, maps)
    if backend == "fused":
        _refuse_fused(obstacle)
        return Choice("fused", "fused", "chosen by name")
    if why := obstacle or _why_not_faster(x_NCHW):
        reason = f"auto: {why}; the reordered operators are the fastest exact ones"
        return Choice("reordered", _reordered_form(x_NCHW), reason)
    return Choice("fused", "fused", "auto: the fused kernels run on this input")


def _why_not_faster(x_NCHW: Tensor) -> str:
    """Why plain operators beat the fused kernels, which can run here; "" if the kernels win (docs/performance.md)."""
    if not x_NCHW.is_cuda:
        return "the fused kernels are only interpreted on a CPU"
    # a compiler cannot trace the switch
    if x_NCHW.dtype == torch.float32 and (torch.compiler.is_compiling() or torch.backends.cuda.matmul.fp32_precision != "tf32"):
        return "the fused kernels are slow in fp32 without TF32"
    return ""


def _reordered_form(x_NCHW: Tensor) -> str:
    """Plain operators for whatever traces or transforms, and for inputs without values; else the hand-written backward."""
    return "reordered" if torch.compiler.is_compiling() or what_needs_plain_operators() or not x_NCHW.numel() else "eager"


def why_not_fused(x_NCHW: Tensor, maps: int) -> str:
    """Why the fused kernels cannot run on an input, as a sentence; "" if they can."""
    if obstacle := _obstacle_on_this_machine():
        return obstacle
    if _is_exporting():
        return "an exported program has no fused kernels"
    if why := what_needs_plain_operators():
        return why
    from csametric.attention import fused

    return fused.why_not(x_NCHW, maps)


def _is_exporting() -> bool:
    # the flag itself: PyTorch 2.11 takes `torch.compiler.is_exporting()` for true whenever it compiles
    return torch.compiler._is_exporting_flag


def _refuse_fused(obstacle: str) -> None:
    if obstacle:
        raise UserError(f"backend='fused' cannot run: {obstacle}; use backend='auto'")


def _obstacle_on_this_machine() -> str:
    if not HAS_TRITON:
        return "the fused kernels need triton, which is not installed"
    if not (torch.cuda.is_available() or INTERPRETS):
        return "the fused kernels need a CUDA device, and none was found"
    return ""


def _fused(x_NCHW: Tensor, weights: CSAWeights) -> Tensor:
    from csametric.attention import fused  # imports triton, which may be absent

    return fused.compressed_self_attention(x_NCHW, weights)


FORMS: dict[str, Callable[[Tensor, CSAWeights], Tensor]] = {
    "reference": reference.compressed_self_attention,
    "reordered": reordered.compressed_self_attention,
    "eager": eager.compressed_self_attention,
    "fused": _fused,
}


def compressed_self_attention(form: str, x_NCHW: Tensor, weights: CSAWeights) -> Tensor:
    """Run a form in the type of its input: weights are cast to it and autocast is off, so output type = input type."""
    with reference.without_autocast(x_NCHW):
        return FORMS[form](x_NCHW, weights.to(x_NCHW.dtype))
