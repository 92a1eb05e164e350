"""Attention layers by name: the two of the paper and their peers, one line each in one table."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from inspect import signature
from typing import Any

from torch import nn

from csametric.attention.layers import CompressedSelfAttention, MakeLayer, SelfAttention
from csametric.errors import UserError

OWN: dict[str, Callable[..., nn.Module]] = {"sa": SelfAttention, "csa": CompressedSelfAttention}
PEERS: dict[str, str] = {  # module of this folder and function or class in it: those modules import timm
    "non_local": "peers:non_local",
    "danet": "peers:position_attention",
    "efficient": "peers:EfficientAttention",
    "a2": "peers:DoubleAttention",
    "gc": "peers:global_context",
    "se": "peers:squeeze_excitation",
    "mhsa": "peers:MultiHeadAttention",
    "ema": "peers:ExpectationMaximizationAttention",
    "external": "peers:ExternalAttention",
    "csa_pooled": "peers:PooledCompressedSelfAttention",
}
NAMES: tuple[str, ...] = (*OWN, *PEERS)


def attention_maker(attention: str | MakeLayer | None, **settings: Any) -> MakeLayer | None:
    """A function from a number of channels to a new attention layer, by the layer's name.

    Args:
        attention: a name of `NAMES`; None or a callable is returned unchanged.
        settings: of `CompressedSelfAttention`: maps, groups, alpha, learn_alpha, norm. Those that the named layer does not
            have are left out; `refuse_ignored` tells a user who set one.

    Raises:
        UserError: an unknown name.

    Examples:
        >>> attention_maker("csa", maps=8, groups=1)(64)
        CompressedSelfAttention(
          maps=8, groups=1, backend='auto'
          (logits): Conv2d(64, 8, kernel_size=(1, 1), stride=(1, 1), bias=False)
          (value): Conv2d(64, 64, kernel_size=(1, 1), stride=(1, 1), bias=False)
        )
    """
    if attention is None or callable(attention):
        return attention
    if attention not in NAMES:
        raise UserError(f"attention={attention!r} is unknown; use None, {', '.join(map(repr, NAMES))} or a callable")
    if attention in PEERS:
        return peer(attention)
    layer = OWN[attention]
    return partial(layer, **{name: value for name, value in settings.items() if name in signature(layer).parameters})


def peer(name: str) -> MakeLayer:
    """The function or class of a name of `PEERS`; it takes the number of channels."""
    module, attribute = PEERS[name].split(":")
    maker: MakeLayer = getattr(import_module(f"csametric.attention.{module}"), attribute)
    return maker


def refuse_ignored(attention: str | MakeLayer | None, **settings: Any) -> None:
    """Raise `UserError` if the layer is a peer, which has published widths, and a setting of CSA was changed for it.

    Args:
        attention: as in `attention_maker`.
        settings: as in `attention_maker`; one that has the default of `CompressedSelfAttention` counts as not set.
    """
    if attention not in PEERS:
        return
    defaults = signature(CompressedSelfAttention).parameters
    changed = [f"{name}={value}" for name, value in settings.items() if value != defaults[name].default]
    if changed:
        raise UserError(f"attention={attention!r} does not use {' and '.join(changed)}; leave it out or use attention='csa'")
