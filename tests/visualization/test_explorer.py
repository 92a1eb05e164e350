"""An encoded view holds the image and the maps, within the precision of float16."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from csametric.visualization.explorer import LayerView, encode_view, explorer_assets


def decoded(text, layer):
    shape = [layer[name] for name in ("groups", "maps", "height", "width")]
    return np.frombuffer(base64.b64decode(text), "<f2").reshape(shape).astype(np.float64)


def softmax(logits, axis):
    exponentials = np.exp(logits - logits.max(axis, keepdims=True))
    return exponentials / exponentials.sum(axis, keepdims=True)


@pytest.fixture
def layer():
    logits = 3 * np.random.default_rng(0).standard_normal((2, 5, 6, 4))
    return LayerView(name="stage 1", alpha=-0.25, base=softmax(logits, (2, 3)), weights=softmax(logits, 1))


def test_a_layer_survives_encoding(layer):
    view = json.loads(json.dumps(encode_view(np.zeros((12, 8, 3), np.uint8), [layer, layer])))
    assert [layer_view["name"] for layer_view in view["layers"]] == ["stage 1", "stage 1"]
    encoded = view["layers"][0]
    assert encoded["alpha"] == -0.25
    np.testing.assert_allclose(decoded(encoded["base"], encoded), layer.base * 24, rtol=2**-11, atol=2**-24)
    np.testing.assert_allclose(decoded(encoded["weights"], encoded), layer.weights, rtol=2**-11, atol=2**-24)


def test_the_map_of_a_position_keeps_its_precision(layer):
    encoded = encode_view(np.zeros((12, 8, 3), np.uint8), [layer])["layers"][0]
    base, weights = decoded(encoded["base"], encoded), decoded(encoded["weights"], encoded)
    exact = np.einsum("gdhw,gd->ghw", layer.base, layer.weights[..., 3, 2]) * 24
    np.testing.assert_allclose(np.einsum("gdhw,gd->ghw", base, weights[..., 3, 2]), exact, rtol=2e-3)


def test_base_map_values_beyond_float16_are_clipped():
    base = np.zeros((1, 1, 300, 300))
    base[0, 0, 7, 9] = 1
    encoded = encode_view(np.zeros((3, 3), np.uint8), [LayerView(name="a", alpha=0, base=base, weights=base)])["layers"][0]
    assert decoded(encoded["base"], encoded).max() == 65504


@pytest.mark.parametrize("shape", [(12, 8, 3), (32, 32)])
def test_the_image_is_encoded_as_png(shape, layer):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    view = encode_view(image, [layer])
    kind, _, content = view["image"].partition(",")
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))), image)
    assert (view["height"], view["width"]) == shape[:2]


def test_the_component_can_be_inlined_in_a_page():
    style, script = explorer_assets()
    assert ".explorer" in style
    assert "mountExplorer" in script
    assert "</" not in style + script
    assert "innerHTML" not in script
    assert "url(" not in style
    assert "http" not in style + script
