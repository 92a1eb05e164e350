"""A network small enough for tests, and image files."""

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from csametric import PCB
from csametric.inference.images import ImageEmbedder
from tests.training.tiny_reid import experiment

HEIGHT, WIDTH = 96, 32


def embedder(attention: str | None = "csa") -> ImageEmbedder:
    """A network with random weights; its three stages have two groups of four distinct maps: 24 x 8, 12 x 4, 6 x 2."""
    torch.manual_seed(0)
    model = PCB("test_resnet", num_ids=5, parts=3, attention=attention, maps=4, groups=2, alpha=0.5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("logits.weight"):
                weight.mul_(4)
    settings = experiment("folder", Path(), f"data.height={HEIGHT}", f"data.width={WIDTH}")
    return ImageEmbedder(model, settings, torch.device("cpu"))


def picture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> NDArray:
    """An RGB image of smoothed noise, uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def file_of(image: NDArray | Image.Image, kind: str = "png", **options: object) -> bytes:
    """Encode an image as a file of the given format."""
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, format=kind, **options)
    return out.getvalue()
