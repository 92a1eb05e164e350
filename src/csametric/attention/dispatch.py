"""The one seam between the layer and its paths: picks the path, casts to the input's type, tells which ran and why."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from csametric.attention import recomputed, reference
from csametric.errors import UserError

Backend = Literal["auto", "reference", "reordered", "fused"]

HAS_TRITON = find_spec("triton") is not None
INTERPRETS = os.environ.get("TRITON_INTERPRET") == "1"


class Choice(NamedTuple):
    """Which path runs and why, in words."""

    path: str
    reason: str


def check_backend(backend: str) -> None:
    """Raises `UserError` where the name is unknown or the path cannot run on this machine, with the reason."""
    if backend not in get_args(Backend):
        raise UserError(f"backend={backend!r} is unknown; use one of {', '.join(get_args(Backend))}")
    if backend == "fused":
        _refuse_where(_obstacle_on_this_machine())


def choose_path(backend: str, x_NCHW: Tensor, maps: int) -> Choice:
    """The path for an input, given a checked backend name.

    Raises:
        UserError: the fused kernels were asked for and cannot run on this input, with the reason.
    """
    if backend not in ("auto", "fused"):
        return Choice(backend, "asked for by name")
    obstacle = why_not_fused(x_NCHW, maps)
    if backend == "fused":
        _refuse_where(obstacle)
        return Choice("fused", "asked for by name")
    if obstacle or not x_NCHW.is_cuda:
        why = obstacle or "the fused kernels are only interpreted on a CPU"
        return Choice("reordered", f"auto: {why}; the reordered operators are the fastest exact ones")
    return Choice("fused", "auto: the fused kernels run on this input")


def why_not_fused(x_NCHW: Tensor, maps: int) -> str:
    """Why the fused kernels cannot run on an input, in words; "" where they can."""
    if obstacle := _obstacle_on_this_machine():
        return obstacle
    if torch.compiler.is_exporting():
        return "an exported program has no fused kernels"
    from csametric.attention import fused

    return fused.why_not(x_NCHW, maps)


def _refuse_where(obstacle: str) -> None:
    if obstacle:
        raise UserError(f"backend='fused' cannot run: {obstacle}; use backend='auto'")


def _obstacle_on_this_machine() -> str:
    if not HAS_TRITON:
        return "the fused kernels need triton, which is not installed"
    if not (torch.cuda.is_available() or INTERPRETS):
        return "the fused kernels need a CUDA device, and there is none"
    return ""


def _fused(*arguments: Tensor | int | None) -> Tensor:
    from csametric.attention import fused

    return fused.compressed_self_attention(*arguments)  # type: ignore[arg-type]


PATHS: dict[str, Callable[..., Tensor]] = {
    "reference": reference.compressed_self_attention,
    "reordered": recomputed.compressed_self_attention,
    "fused": _fused,
}


def compressed_self_attention(
    path: str,
    x_NCHW: Tensor,
    logit_weight: Tensor,
    value_weight: Tensor,
    alpha: Tensor,
    logit_bias: Tensor | None,
    value_bias: Tensor | None,
    groups: int,
) -> Tensor:
    """Run a path in the type of its input: parameters are cast to it, autocast is off, so output type = input type."""

    def cast(parameter: Tensor | None) -> Tensor | None:
        return None if parameter is None else parameter.to(x_NCHW.dtype)

    with reference.without_autocast(x_NCHW):
        return PATHS[path](
            x_NCHW,
            logit_weight.to(x_NCHW.dtype),
            value_weight.to(x_NCHW.dtype),
            alpha.to(x_NCHW.dtype),
            cast(logit_bias),
            cast(value_bias),
            groups,
        )
