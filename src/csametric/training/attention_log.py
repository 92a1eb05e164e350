"""What attention does as training goes on: numbers that tell a healthy layer from a collapsed one, and pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from csametric.attention.recording import Attended, recorded_attention
from csametric.attention.statistics import attention_statistics
from csametric.inference.patches import Describe

IMAGES, BASE_MAPS = 4, 8


@dataclass(frozen=True, kw_only=True)
class Look:
    """What to log of attention. numbers: of each layer. usage: of each layer, the mean weight of each map, (G * D,).

    pictures: of each layer, uint8 (H, W, 3): a row an image, then its most used base maps.
    """

    numbers: Mapping[str, float] = field(default_factory=dict)
    usage: Mapping[str, NDArray] = field(default_factory=dict)
    pictures: Mapping[str, NDArray] = field(default_factory=dict)


def look(model: nn.Module, run: Describe, images: NDArray) -> Look:
    """What the compressed self-attention layers of a model look at in some images; nothing where it has none.

    Args:
        run: takes the images through the model, in evaluation mode. images: uint8 (N, H, W) or (N, H, W, 3).
    """
    with recorded_attention(model) as found:
        run(images)
    layers = {f"attention{number}": layer for number, layer in enumerate(found.values(), 1)}
    statistics = {name: attention_statistics(layer.maps) for name, layer in layers.items()}
    numbers: dict[str, float] = {}
    for name, each in statistics.items():
        numbers |= {f"{name}_entropy": each.entropy, f"{name}_overlap": each.overlap, f"{name}_used_maps": each.used_maps}
    return Look(
        numbers=numbers,
        usage={name: each.usage.flatten().numpy() for name, each in statistics.items()},
        pictures={name: picture(images, layer) for name, layer in layers.items()},
    )


def picture(images: NDArray, layer: Attended) -> NDArray:
    """A row an image: the image, then the base maps of its first group that weigh most, as heat; uint8 (H, W, 3)."""
    height, width = images.shape[1:3]
    rows = []
    for image, base_DHW, weights_DHW in zip(
        images, layer.maps.base[:, 0].numpy(), layer.maps.weights[:, 0].numpy(), strict=True
    ):
        most_used = np.argsort(-weights_DHW.mean((1, 2)), kind="stable")[:BASE_MAPS]
        colours = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        rows.append(np.hstack([colours, *(_heat(base_DHW[number], height, width) for number in most_used)]))
    return np.vstack(rows)


def _heat(map_HW: NDArray, height: int, width: int) -> NDArray:
    grey = np.round(255 * map_HW / map_HW.max()).astype(np.uint8)
    large = cv2.resize(grey, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(cv2.applyColorMap(large, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
