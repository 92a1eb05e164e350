"""What the compressed self-attention layers of a network look at, recorded in its own forwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import NamedTuple

from torch import Tensor, nn

from csametric.attention.layers import CompressedSelfAttention
from csametric.attention.reference import AttentionMaps


class Attended(NamedTuple):
    """What one layer looked at. maps: see `AttentionMaps`, in fp32 on the CPU. alpha: the weight of what it adds."""

    maps: AttentionMaps
    alpha: float


@contextmanager
def recorded_attention(network: nn.Module) -> Iterator[dict[str, Attended]]:
    """A context whose dictionary each forward fills: the layers by their name in the network, from the first on.

    Forwards of other threads are not recorded.
    """
    found: dict[str, Attended] = {}
    here = get_ident()

    def record(name: str, layer: CompressedSelfAttention, x_NCHW: Tensor) -> None:
        if get_ident() != here:
            return
        maps = layer.attention(x_NCHW)
        found[name] = Attended(AttentionMaps(*(each.detach().float().cpu() for each in maps)), layer.alpha.item())

    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, CompressedSelfAttention)]
    hooks = [
        layer.register_forward_pre_hook(lambda module, inputs, name=name: record(name, module, inputs[0]))
        for name, layer in layers
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
