"""Descriptors of keypoints by name: a finished run, SIFT or RootSIFT."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from csametric.data.patch_views import pyramid, sample_patches
from csametric.errors import UserError
from csametric.inference.load import load
from csametric.inference.patches import PatchEmbedder
from csametric.matching.keypoints import LocalFrames
from csametric.models.sift import normalize_sift, sift_descriptors

CLASSICAL = {"sift": False, "rootsift": True}


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """A descriptor of unit length.

    of_keypoints: (uint8 (H, W), K keypoints) -> float32 (K, D). of_patches: uint8 (K, 32, 32) -> float32 (K, D).
    """

    name: str
    of_keypoints: Callable[[NDArray, LocalFrames], NDArray]
    of_patches: Callable[[NDArray], NDArray]


def find_descriptor(name: str) -> Descriptor:
    """SIFT or RootSIFT by "sift" and "rootsift", or the descriptor of a finished run's folder.

    Raises:
        UserError: no such run, or one that describes whole images.
    """
    if name in CLASSICAL:
        return classical_descriptor(name)
    model = load(name)
    if not isinstance(model, PatchEmbedder):
        raise UserError(f"{name} describes images of people, not patches; name a run of hardnet_csa or another descriptor")
    return network_descriptor(Path(name).name, model)


def network_descriptor(name: str, model: PatchEmbedder) -> Descriptor:
    """A trained network on patches of the support region it was trained with."""

    def of_keypoints(image_HW: NDArray, frames: LocalFrames) -> NDArray:
        return model.describe(sample_patches(pyramid(image_HW), frames.corners(model.support)))

    return Descriptor(name=name, of_keypoints=of_keypoints, of_patches=model.describe)


def classical_descriptor(name: str) -> Descriptor:
    """OpenCV's SIFT of keypoints in the photograph itself, as SIFT or as RootSIFT."""
    root = CLASSICAL[name]

    def of_keypoints(image_HW: NDArray, frames: LocalFrames) -> NDArray:
        points = [
            cv2.KeyPoint(float(x), float(y), float(size), float(angle), 1.0, int(octave), number)
            for number, ((x, y), size, angle, octave) in enumerate(
                zip(frames.centres, frames.sizes, frames.angles, frames.octaves, strict=True)
            )
        ]
        if not points:
            return np.empty((0, 128), np.float32)
        _, described = cv2.SIFT.create().compute(image_HW, points)
        return normalize_sift(described, root)

    def of_patches(patches_KSS: NDArray) -> NDArray:
        return sift_descriptors(patches_KSS, root)

    return Descriptor(name={"sift": "SIFT", "rootsift": "RootSIFT"}[name], of_keypoints=of_keypoints, of_patches=of_patches)
