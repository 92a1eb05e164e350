"""What a page shows of an attended image."""

from typing import Any

from csametric.inference import AttendedImage
from csametric.report.explorer import LayerView, encode_view


def view_of(attended: AttendedImage) -> dict[str, Any]:
    """What the explorer shows of an image and its attention, ready for JSON; see `encode_view`."""
    layers = [
        LayerView(name=name, alpha=layer.alpha, base=layer.maps.base[0].numpy(), weights=layer.maps.weights[0].numpy())
        for name, layer in attended.layers.items()
    ]
    return encode_view(attended.image, layers)
