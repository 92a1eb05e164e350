"""The one seam between the layer and its paths: picks the path, casts to the input's type, tells which ran and why."""

from typing import Literal, NamedTuple

from torch import Tensor

from csametric.attention import reference, reordered
from csametric.errors import UserError

Backend = Literal["auto", "reference", "reordered", "fused"]

PATHS = {
    "reference": reference.compressed_self_attention,
    "reordered": reordered.compressed_self_attention,
}
BACKENDS = ("auto", "reference", "reordered", "fused")
NO_FUSED_KERNEL = "this version has no fused kernels"


class Choice(NamedTuple):
    """Which path runs and why, in words."""

    path: str
    reason: str


def check_backend(backend: str) -> None:
    """Raises `UserError` where the name is unknown or the path cannot run, with the reason."""
    if backend not in BACKENDS:
        raise UserError(f"backend={backend!r} is unknown; use one of {', '.join(BACKENDS)}")
    if backend == "fused":
        raise UserError(f"backend='fused' cannot run: {NO_FUSED_KERNEL}; use backend='auto'")


def choose_path(backend: str) -> Choice:
    """The path for a checked backend name."""
    if backend == "auto":
        return Choice("reordered", f"auto: {NO_FUSED_KERNEL}, and the reordered operators are the fastest exact ones")
    return Choice(backend, "asked for by name")


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
