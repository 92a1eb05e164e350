"""Records what the compressed self-attention layers of a network look at, during its own forwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import NamedTuple

from torch import Tensor, nn

from csametric.attention.layers import CompressedSelfAttention
from csametric.attention.reference import AttentionMaps


class Attended(NamedTuple):
    """What one layer looked at."""

    maps: AttentionMaps  # in fp32 on the CPU
    alpha: float  # the weight of the attended features


@contextmanager
def recorded_attention(network: nn.Module) -> Iterator[dict[str, Attended]]:
    """Record what each layer looks at in every forward inside the context; forwards of other threads are not recorded.

    Yields:
        A dictionary from the name of a layer in the network to its maps, in the order of the forward.

    Examples:
        >>> from csametric import L2Net
        >>> from torch import zeros
        >>> net = L2Net(attention="csa", maps=8).eval()
        >>> with recorded_attention(net) as attended:
        ...     features = net(zeros(2, 1, 32, 32))
        >>> attended["attention"].maps.base.shape
        torch.Size([2, 1, 8, 16, 16])
    """
    attended: dict[str, Attended] = {}
    thread = get_ident()

    def record(name: str, layer: CompressedSelfAttention, x_NCHW: Tensor) -> None:
        if get_ident() != thread:
            return
        maps = layer.attention(x_NCHW)
        attended[name] = Attended(AttentionMaps(*(part.detach().float().cpu() for part in maps)), layer.alpha.item())

    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, CompressedSelfAttention)]
    hooks = [
        layer.register_forward_pre_hook(lambda module, inputs, name=name: record(name, module, inputs[0]))
        for name, layer in layers
    ]
    try:
        yield attended
    finally:
        for hook in hooks:
            hook.remove()
