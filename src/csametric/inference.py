"""A finished run as a function from images to embeddings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from csametric.attention.recording import Attended, recorded_attention
from csametric.data.keypoints import SUPPORT
from csametric.data.loading import in_batches, made_ahead
from csametric.data.transforms import read_image, resize
from csametric.errors import UserError
from csametric.models.l2net import PATCH_SIDE, L2Net, for_inference
from csametric.models.pcb import PCB
from csametric.training import descriptors, reid
from csametric.training.checkpoint import fit_weights, load_weights, read_experiment, read_weights, weights_of
from csametric.training.experiment import DescriptorExperiment, PatchExperiment, ReidExperiment
from csametric.training.precision import choose_precision

Images = ArrayLike | Tensor | str | Path | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class AttendedImage:
    """An image as a network saw it, and what its compressed self-attention layers looked at.

    image: uint8 (H, W) or (H, W, 3). layers: by the place they stand at, from the first on; maps of one image, N = 1.
    """

    image: NDArray
    layers: Mapping[str, Attended]


class PatchEmbedder:
    """A trained descriptor with the preprocessing it was trained with; made by `load`.

    support: the side of the region it describes over the keypoint's size.
    """

    def __init__(self, model: L2Net, experiment: PatchExperiment, device: torch.device) -> None:
        self.model, self.experiment, self.device = model.to(device).eval(), experiment, device
        self.support = experiment.data.support if isinstance(experiment, DescriptorExperiment) else SUPPORT
        precision = choose_precision(experiment.precision, device)
        self.describe = descriptors.embedder(for_inference(self.model), device, precision)

    def embed(self, images: ArrayLike | Tensor) -> Tensor:
        """Grey patches (N, 32, 32) or (N, 1, 32, 32) -> unit vectors (N, 128), fp32 on the CPU.

        Whole or floating numbers in any range: each patch is normalised by its own mean and deviation.

        Raises:
            UserError: another shape.
        """
        patches = _array(images)
        if patches.ndim == 4 and patches.shape[1] == 1:
            patches = patches[:, 0]
        if patches.ndim != 3 or patches.shape[1:] != (PATCH_SIDE, PATCH_SIDE):
            raise UserError(f"the model embeds grey patches (N, {PATCH_SIDE}, {PATCH_SIDE}), got {patches.shape}")
        return torch.from_numpy(self.describe(patches))

    @torch.inference_mode()
    def attend(self, image_HW3: NDArray) -> AttendedImage:
        """What the network looks at in a patch, given as an RGB image of any size, uint8 (H, W, 3).

        Raises:
            UserError: the network has no compressed self-attention.
        """
        patch = resize(cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY), PATCH_SIDE, PATCH_SIDE)
        with recorded_attention(self.model) as found:
            self.model(descriptors.to_network(np.stack([patch]), self.device))
        return _attended(patch, found.values(), ["layer 3"], self.experiment.recipe)


class ImageEmbedder:
    """A trained re-identification model with its preprocessing; made by `load`."""

    def __init__(self, model: PCB, experiment: ReidExperiment, device: torch.device) -> None:
        self.model, self.experiment, self.device = model.to(device).eval(), experiment, device
        self.precision = choose_precision(experiment.precision, device)

    def embed(self, images: Images, flip: bool = False) -> Tensor:
        """Images -> features (N, D), fp32 on the CPU, of unit length part by part.

        Args:
            images: the path of an image file, or paths; or RGB images of any size, uint8 (N, H, W, 3) or (N, 3, H, W), or
                floating numbers in [0, 1] of the same shapes. They are resized to the size the model was trained with.
            flip: whether to average the features of an image and its mirror image.

        Raises:
            UserError: another shape, type or range, or a file that is no whole image.
        """
        height, width = self.experiment.data.height, self.experiment.data.width
        batches: Iterable[NDArray]
        images = [images] if isinstance(images, str | Path) else images
        if isinstance(images, Sequence) and all(isinstance(each, str | Path) for each in images):
            batches = made_ahead(
                lambda part: np.stack([read_image(Path(each), height, width) for each in part]),
                in_batches(images, reid.EMBED_BATCH),
            )
        else:
            parts = in_batches(_colour_images(_array(images)), reid.EMBED_BATCH)
            batches = (np.stack([resize(each, height, width) for each in part]) for part in parts)
        features = [reid.embed_images(self.model, batch, self.device, self.precision, flip) for batch in batches]
        if not features:
            raise UserError("there are no images to embed; give one at least")
        return torch.from_numpy(np.concatenate(features))

    def attend(self, image_HW3: NDArray) -> AttendedImage:
        """What the network looks at in an RGB image of any size, uint8 (H, W, 3), after each of its stages.

        Raises:
            UserError: the network has no compressed self-attention.
        """
        image = resize(image_HW3, self.experiment.data.height, self.experiment.data.width)
        with recorded_attention(self.model) as found:
            reid.embed_images(self.model, np.stack([image]), self.device, self.precision)
        stages = [f"stage {number}" for number in sorted(self.experiment.model.stages)]
        return _attended(image, found.values(), stages, self.experiment.recipe)


def load(run: str | Path, device: str | torch.device | None = None) -> PatchEmbedder | ImageEmbedder:
    """The model of a finished run or of a bundle, on the given device, by default a GPU where there is one.

    Raises:
        UserError: the folder is neither, the run is not finished, or its weights do not fit its experiment.
    """
    folder = Path(run)
    experiment = read_experiment(folder)
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if isinstance(experiment, PatchExperiment):
        network = descriptors.build_model(experiment.model)
        load_weights(weights_of(folder), network)
        return PatchEmbedder(network, experiment, chosen)
    assert isinstance(experiment, ReidExperiment)
    weights = read_weights(weights_of(folder))
    num_ids = len(weights.get("classifiers.0.bias", (0,)))  # fit_weights explains weights of something else
    model = reid.build_model(experiment.model, num_ids, trained=True)
    fit_weights(weights, model, weights_of(folder))
    return ImageEmbedder(model, experiment, chosen)


def _attended(image: NDArray, found: Iterable[Attended], places: Sequence[str], recipe: str) -> AttendedImage:
    layers = list(found)
    if not layers:
        raise UserError(f"{recipe} has no compressed self-attention to look at; train a recipe with csa in its name")
    return AttendedImage(image=image, layers=dict(zip(places, layers, strict=True)))


def _array(images: Images) -> NDArray:
    if isinstance(images, Tensor):
        images = images.detach().cpu()
        images = images.float() if images.is_floating_point() else images
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise UserError("the images differ in shape; give paths of files, or embed one shape after the other") from error
    is_floating = np.issubdtype(array.dtype, np.floating)
    return array.astype(np.float32 if is_floating else array.dtype.newbyteorder("="), copy=False)


def _colour_images(images: NDArray) -> NDArray:
    """As uint8 (N, H, W, 3)."""
    if images.ndim == 4 and images.shape[1] == 3 and images.shape[3] != 3:
        images = images.transpose(0, 2, 3, 1)
    if images.ndim != 4 or images.shape[3] != 3:
        raise UserError(f"the model embeds RGB images (N, H, W, 3) or (N, 3, H, W), got {images.shape}")
    if np.issubdtype(images.dtype, np.floating):
        if not (images.min(initial=0) >= 0 and images.max(initial=0) <= 1):
            raise UserError("images of floating numbers must lie in [0, 1]; do not normalise them, the model does")
        images = np.round(images * 255).astype(np.uint8)
    if images.dtype != np.uint8:
        raise UserError(f"images are uint8 or floating numbers in [0, 1], not {images.dtype}; convert them")
    return images
