"""An image together with what the attention of a network looked at in it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from numpy.typing import NDArray

from csametric.attention.recording import Attended
from csametric.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AttendedImage:
    """An image as a network saw it, and what its compressed self-attention layers looked at.

    image: uint8 (H, W) or (H, W, 3). layers: by the place they stand at, from the first on; maps of one image, N = 1.
    """

    image: NDArray
    layers: Mapping[str, Attended]


def attended_image(image: NDArray, found: Iterable[Attended], places: Sequence[str], recipe: str) -> AttendedImage:
    """The image with its layers named by their places.

    Raises:
        UserError: the network has no compressed self-attention.
    """
    layers = list(found)
    if not layers:
        raise UserError(f"{recipe} has no compressed self-attention to look at; train a recipe with csa in its name")
    return AttendedImage(image=image, layers=dict(zip(places, layers, strict=True)))
