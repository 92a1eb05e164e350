"""An image together with the attention maps that a network computed for it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from numpy.typing import NDArray

from csametric.attention.recording import Attended
from csametric.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AttendedImage:
    """An image as a network saw it, and the attention maps of its compressed self-attention layers."""

    image: NDArray  # uint8 (H, W) or (H, W, 3)
    layers: Mapping[str, Attended]  # by their place, in network order; maps of one image, N = 1


def attended_image(image: NDArray, recorded: Iterable[Attended], places: Sequence[str], recipe: str) -> AttendedImage:
    """Name the recorded layers of an image by their places in the network.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        recorded: the attention maps of the layers, in network order.
        places: one name per layer, in the same order.
        recipe: the recipe of the model, for the error message.

    Raises:
        UserError: the network contains no compressed self-attention.
    """
    layers = list(recorded)
    if not layers:
        raise UserError(f"{recipe} contains no compressed self-attention; train a recipe with csa in its name")
    return AttendedImage(image=image, layers=dict(zip(places, layers, strict=True)))
