"""Embed grey patches with a trained descriptor network and its preprocessing."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from csametric.attention.recording import recorded_attention
from csametric.data.keypoints import SUPPORT
from csametric.data.transforms import resize
from csametric.errors import UserError
from csametric.inference.attended import AttendedImage, attended_image
from csametric.inference.images import finite_features, to_array
from csametric.models.l2net import PATCH_SIDE, L2Net, fold_l2net
from csametric.runs.experiment import BrownExperiment, DescriptorExperiment, DescriptorSettings, PatchExperiment
from csametric.runs.folder import load_weights, weights_of
from csametric.runs.precision import Precision, autocast, choose_precision

EMBED_BATCH = 512

Describe = Callable[[NDArray], NDArray]  # uint8 (K, 32, 32) -> float32 (K, D)


def build_descriptor(settings: DescriptorSettings) -> L2Net:
    """Build the network that the settings describe, in channels_last."""
    attention = None if settings.attention == "none" else settings.attention
    model = L2Net(attention, maps=settings.maps, dropout=settings.dropout)
    return model.to(memory_format=torch.channels_last)


def prepare_patches(patches_KSS: NDArray, device: torch.device) -> Tensor:
    """Convert uint8 patches (K, S, S) to fp32 (K, 1, S, S) on the device, grey values in [0, 255]."""
    return torch.from_numpy(np.ascontiguousarray(patches_KSS)).to(device).unsqueeze(1).float()


def make_embedder(model: nn.Module, device: torch.device, precision: Precision) -> Describe:
    """Turn a network into a function from patches, uint8 (K, S, S), to descriptors, float32 (K, D).

    The function works batch by batch in evaluation mode and restores the network's mode afterwards.
    """

    @torch.inference_mode()
    def describe(patches_KSS: NDArray) -> NDArray:
        was_training = model.training
        model.eval()
        with autocast(device, precision):
            batches = [
                model(prepare_patches(patches_KSS[start : start + EMBED_BATCH], device)).float().cpu()
                for start in range(0, max(len(patches_KSS), 1), EMBED_BATCH)
            ]
        model.train(was_training)
        return torch.cat(batches).numpy()

    return describe


class PatchEmbedder:
    """A trained descriptor network with its preprocessing, as returned by `load`.

    Attributes:
        support: the side of the region that a patch shows, in multiples of the keypoint's size.
    """

    def __init__(self, model: L2Net, experiment: PatchExperiment, device: torch.device) -> None:
        self.model, self.experiment, self.device = model.to(device).eval(), experiment, device
        self.support = experiment.data.support if isinstance(experiment, DescriptorExperiment) else SUPPORT
        precision = choose_precision(experiment.precision, device)
        self.describe = make_embedder(fold_l2net(self.model), device, precision)

    def embed(self, images: ArrayLike | Tensor) -> Tensor:
        """Describe grey patches.

        Args:
            images: (N, 32, 32) or (N, 1, 32, 32), integers or floating-point numbers in any range: each patch is normalised
                by its own mean and deviation.

        Returns:
            Unit vectors (N, 128), fp32 on the CPU.

        Raises:
            UserError: the shape is wrong, or descriptors are not finite.
        """
        patches = to_array(images)
        if patches.ndim == 4 and patches.shape[1] == 1:
            patches = patches[:, 0]
        if patches.ndim != 3 or patches.shape[1:] != (PATCH_SIDE, PATCH_SIDE):
            raise UserError(f"patches must be grey, (N, {PATCH_SIDE}, {PATCH_SIDE}), got {patches.shape}; convert them")
        return finite_features(self.describe(patches))

    @torch.inference_mode()
    def attend(self, image_HW3: NDArray) -> AttendedImage:
        """Compute the attention maps of an image, which is resized to one patch.

        Args:
            image_HW3: RGB of any size, uint8 (H, W, 3).

        Raises:
            UserError: the network contains no compressed self-attention.
        """
        patch = resize(cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY), PATCH_SIDE, PATCH_SIDE)
        with recorded_attention(self.model) as recorded:
            self.model(prepare_patches(np.stack([patch]), self.device))
        return attended_image(patch, recorded.values(), ["layer 3"], self.experiment.recipe)


def load_descriptor(folder: Path, experiment: PatchExperiment, device: torch.device) -> PatchEmbedder:
    """Load the descriptor of a finished run or a bundle; raises what `load_weights` raises."""
    network = build_descriptor(experiment.model)
    load_weights(weights_of(folder), network)
    return PatchEmbedder(network, experiment, device)


def describe_photographs(experiment: DescriptorExperiment, data: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    """Describe the training photographs of a run, for its model card.

    Args:
        experiment: unused; all kinds of experiment share this signature.
        data: the training data as environment.json records it.
        scores: unused.
    """
    keypoints = data["train"].values()
    return f"{len(keypoints):,} photographs without labels: {sum(keypoints):,} keypoints"


def describe_brown(experiment: BrownExperiment, data: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    """Describe the training subset of a run, for its model card.

    Args:
        experiment: names the subset.
        data: the training data as environment.json records it.
        scores: unused.
    """
    return f"{experiment.data.train} of Brown / UBC PhotoTour: {data['train']:,} patches"
