"""The attention explorer: an image whose every position shows what it attends to, as a component of HTML pages.

`templates/explorer.js` and `templates/explorer.css` are the component, inlined by the page of `csametric serve` and by
reports. It reconstructs a position's map from the base maps and weights it is given, equation (4): nobody is asked again.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True, kw_only=True)
class LayerView:
    """What an attention layer looked at in one image.

    name: what the reader calls it. alpha: the weight of what the layer adds.
    base: (G, D, H, W), the base attention maps; each sums to 1 over H, W.
    weights: (G, D, H, W), the adaptive weights; they sum to 1 over D at every position.
    """

    name: str
    alpha: float
    base: NDArray
    weights: NDArray


class Assets(NamedTuple):
    """The component's style sheet and script, to stand inside <style> and <script>."""

    style: str
    script: str


def explorer_assets() -> Assets:
    """The component, the same for every page; its script defines `mountExplorer(element, view)` and `mountExplorers()`.

    `mountExplorers()` fills each <div class="explorer" data-view="ID"> from the <script type="application/json" id="ID">
    that holds its view, when it comes near the window.
    """
    folder = files("csametric.visualization") / "templates"
    return Assets(*((folder / f"explorer.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")))


def encode_view(image: NDArray, layers: Sequence[LayerView]) -> dict[str, Any]:
    """What the component shows, ready for JSON.

    Args:
        image: as the network saw it, uint8 (H, W, 3) or (H, W).
        layers: from the first on.

    Returns:
        image: a PNG as data URI; height, width: its own. layers: of each its name, alpha, groups, maps, height, width, and in
        base64 of little-endian float16 in the order (G, D, H, W) its weights and its base maps times H x W, 1 the uniform map;
        a base map of more than 65,504 times the uniform one is cut off there.
    """
    assert image.dtype == np.uint8
    return {
        "image": _png_uri(image),
        "height": image.shape[0],
        "width": image.shape[1],
        "layers": [_encode_layer(layer) for layer in layers],
    }


def _encode_layer(layer: LayerView) -> dict[str, Any]:
    assert layer.base.shape == layer.weights.shape
    groups, maps, height, width = layer.base.shape
    return {
        "name": layer.name,
        "alpha": float(layer.alpha),
        "groups": groups,
        "maps": maps,
        "height": height,
        "width": width,
        "base": _halves(layer.base * (height * width)),
        "weights": _halves(layer.weights),
    }


def _halves(values: NDArray) -> str:
    return base64.b64encode(np.minimum(values, LARGEST_HALF).astype("<f2").tobytes()).decode()


def _png_uri(image: NDArray) -> str:
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="png")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
