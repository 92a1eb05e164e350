"""Log the attention of a model in training: statistics that tell a healthy layer from a collapsed one, and pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from csametric.attention.recording import Attended, recorded_attention
from csametric.attention.statistics import attention_statistics
from csametric.inference.patches import Describe

IMAGES, BASE_MAPS = 4, 8  # drawn per picture, and drawn per image


@dataclass(frozen=True, kw_only=True)
class AttentionSnapshot:
    """The compressed self-attention of a model at one step; empty for a model without it."""

    numbers: Mapping[str, float] = field(default_factory=dict)  # statistics of each layer
    usage: Mapping[str, NDArray] = field(default_factory=dict)  # layer -> the mean weight of each map, (G * D,)
    pictures: Mapping[str, NDArray] = field(default_factory=dict)  # layer -> as `draw_base_maps` draws it, uint8 (H, W, 3)


def snapshot_attention(model: nn.Module, embed: Describe, images: NDArray) -> AttentionSnapshot:
    """Record the attention of a model on some images.

    Args:
        model: any network.
        embed: runs the model on the images in evaluation mode; its result is not used.
        images: uint8 (N, H, W) or (N, H, W, 3).
    """
    with recorded_attention(model) as recorded:
        embed(images)
    layers = {f"attention{number}": layer for number, layer in enumerate(recorded.values(), 1)}
    statistics = {name: attention_statistics(layer.maps) for name, layer in layers.items()}
    numbers: dict[str, float] = {}
    for name, values in statistics.items():
        numbers[f"{name}_entropy"] = values.entropy
        numbers[f"{name}_overlap"] = values.overlap
        numbers[f"{name}_used_maps"] = values.used_maps
    return AttentionSnapshot(
        numbers=numbers,
        usage={name: values.usage.flatten().numpy() for name, values in statistics.items()},
        pictures={name: draw_base_maps(images, layer) for name, layer in layers.items()},
    )


def draw_base_maps(images: NDArray, layer: Attended) -> NDArray:
    """Draw one row per image: the image, then the most used base maps of the first group as heat maps.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).
        layer: the attention maps of a layer for these images.

    Returns:
        uint8 (N * H, (1 + maps) * W, 3), RGB.
    """
    height, width = images.shape[1:3]
    base_NDHW, weights_NDHW = layer.maps.base[:, 0].numpy(), layer.maps.weights[:, 0].numpy()
    rows = []
    for image, base_DHW, weights_DHW in zip(images, base_NDHW, weights_NDHW, strict=True):
        most_used = np.argsort(-weights_DHW.mean((1, 2)), kind="stable")[:BASE_MAPS]
        colours = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        rows.append(np.hstack([colours, *(_heat_map(base_DHW[number], height, width) for number in most_used)]))
    return np.vstack(rows)


def _heat_map(map_HW: NDArray, height: int, width: int) -> NDArray:
    grey = np.round(255 * map_HW / map_HW.max()).astype(np.uint8)
    large = cv2.resize(grey, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(cv2.applyColorMap(large, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
