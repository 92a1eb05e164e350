"""The attention explorer, a component of HTML pages that shows what each position of an image attends to.

`templates/explorer.js` and `templates/explorer.css` are the component; the web server and the reports inline both. It
reconstructs the map of a position in the browser from the base maps and weights, equation (4), without further requests.
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
    """The attention of one layer in one image."""

    name: str  # for the reader, e.g. "stage 1"
    alpha: float  # weight of the layer's residual
    base: NDArray  # (G, D, H, W), the base attention maps; each sums to 1 over H, W
    weights: NDArray  # (G, D, H, W), the adaptive weights; they sum to 1 over D at every position


class Assets(NamedTuple):
    """The style sheet and the script of the component."""

    style: str  # content of a <style> element
    script: str  # content of a <script> element


def explorer_assets() -> Assets:
    """Read the component; its script defines `mountExplorer(element, view)` and `mountExplorers()`.

    `mountExplorers()` fills each <div class="explorer" data-view="ID"> when it comes near the window, from the
    <script type="application/json" id="ID"> that holds its view.

    Examples:
        >>> "mountExplorers" in explorer_assets().script
        True
    """
    folder = files("csametric.visualization") / "templates"
    return Assets(*((folder / f"explorer.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")))


def encode_view(image: NDArray, layers: Sequence[LayerView]) -> dict[str, Any]:
    """Encode an image and its attention for the component, as a dictionary for JSON.

    Args:
        image: the input of the network, uint8 (H, W, 3) or (H, W).
        layers: the layers to show, from the shallowest to the deepest.

    Returns:
        image (a PNG data URI), height, width, and layers. Each layer has name, alpha, groups, maps, height, width, and base
        and weights as base64 of little-endian float16, (G, D, H, W). Base maps are scaled by H x W, so that the uniform map
        is 1; values above 65,504 are clipped.

    Examples:
        >>> map_2x1 = np.array([0.25, 0.75]).reshape(1, 1, 2, 1)
        >>> layer = LayerView(name="stage 1", alpha=0.5, base=map_2x1, weights=np.ones((1, 1, 2, 1)))
        >>> view = encode_view(np.zeros((4, 2), np.uint8), [layer])
        >>> np.frombuffer(base64.b64decode(view["layers"][0]["base"]), "<f2").tolist()
        [0.5, 1.5]
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
