"""Descriptors of keypoints: a trained network, SIFT or RootSIFT."""

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

CLASSICAL = {"sift": False, "rootsift": True}  # whether the square root is taken


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """A descriptor of unit length, as functions of keypoints and of patches."""

    name: str  # for tables and plots
    describe_keypoints: Callable[[NDArray, LocalFrames], NDArray]  # (grey uint8 (H, W), K keypoints) -> float32 (K, D)
    describe_patches: Callable[[NDArray], NDArray]  # uint8 (K, 32, 32) -> float32 (K, D)


def find_descriptor(name: str) -> Descriptor:
    """Load a descriptor by name.

    Args:
        name: "sift", "rootsift", or what `inference.load.load` takes: the folder of a run, for example.

    Raises:
        UserError: the run cannot be loaded, or its model does not describe patches.
    """
    if name in CLASSICAL:
        return classical_descriptor(name)
    model = load(name)
    if not isinstance(model, PatchEmbedder):
        raise UserError(f"{name} embeds images of people, not patches; use a run of hardnet_csa or another patch recipe")
    return network_descriptor(Path(name).name, model)


def network_descriptor(name: str, model: PatchEmbedder) -> Descriptor:
    """The descriptor of a trained network; patches are cut with the support region it was trained with."""

    def describe_keypoints(image_HW: NDArray, frames: LocalFrames) -> NDArray:
        return model.describe(sample_patches(pyramid(image_HW), frames.corners(model.support)))

    return Descriptor(name=name, describe_keypoints=describe_keypoints, describe_patches=model.describe)


def classical_descriptor(name: str) -> Descriptor:
    """OpenCV's SIFT, computed in the photograph itself, as "sift" or "rootsift".

    Examples:
        >>> classical_descriptor("rootsift").describe_patches(np.zeros((2, 32, 32), np.uint8)).shape
        (2, 128)
    """
    takes_root = CLASSICAL[name]

    def describe_keypoints(image_HW: NDArray, frames: LocalFrames) -> NDArray:
        points = [
            cv2.KeyPoint(float(x), float(y), float(size), float(angle), 1.0, int(octave), index)
            for index, ((x, y), size, angle, octave) in enumerate(
                zip(frames.centres, frames.sizes, frames.angles, frames.octaves, strict=True)
            )
        ]
        if not points:
            return np.empty((0, 128), np.float32)
        _, descriptors_KD = cv2.SIFT.create().compute(image_HW, points)
        return normalize_sift(descriptors_KD, takes_root)

    def describe_patches(patches_KSS: NDArray) -> NDArray:
        return sift_descriptors(patches_KSS, takes_root)

    return Descriptor(
        name={"sift": "SIFT", "rootsift": "RootSIFT"}[name],
        describe_keypoints=describe_keypoints,
        describe_patches=describe_patches,
    )
