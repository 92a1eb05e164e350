"""Images to embeddings: a trained re-identification model with its preprocessing."""

from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from csametric.attention.catalogue import PEERS
from csametric.attention.recording import recorded_attention
from csametric.data.loading import in_batches, prefetch
from csametric.data.transforms import read_image, resize
from csametric.errors import UserError
from csametric.inference.attended import AttendedImage, attended_image
from csametric.models.backbone import Normalization, normalization
from csametric.models.pcb import PCB
from csametric.models.weights import load_strictly, read_state
from csametric.runs.experiment import ATTENTION_SETTINGS, PCBSettings, ReidExperiment
from csametric.runs.folder import WEIGHTS, fit_weights, read_weights, weights_of
from csametric.runs.precision import Precision, autocast, choose_precision

EMBED_BATCH = 64


def build_pcb(settings: PCBSettings, num_ids: int, trained: bool = False) -> PCB:
    """The model these settings describe, in channels_last, with the weights it begins with unless those of a run follow."""
    arguments = {name: getattr(settings, name) for name in signature(PCB).parameters if hasattr(settings, name)}
    if settings.attention == "none":
        arguments["attention"] = None
    if settings.attention in PEERS:  # runs may hold settings that a peer does not have, and that had no effect
        arguments = {name: value for name, value in arguments.items() if name not in ATTENTION_SETTINGS}
    if trained or settings.start_from or settings.pretrained == "none":
        arguments["pretrained"] = None
    model = PCB(num_ids=num_ids, **arguments)
    model.backbone.normalization = normalization(settings.backbone, settings.pretrained)
    if settings.start_from and not trained:
        start_from_trained(model, Path(settings.start_from) / WEIGHTS)
    return model.to(memory_format=torch.channels_last)


def start_from_trained(model: PCB, weights: Path) -> None:
    """Take over a trained PCB: all of its weights; a refined model keeps its own new part classifier."""
    state = read_state(weights)
    new = {name: value for name, value in model.state_dict().items() if name.startswith("refinement.") and name not in state}
    load_strictly(model, state | new, weights)


def to_network(images_NHW3: NDArray, normalization: Normalization, device: torch.device) -> Tensor:
    """uint8 (N, H, W, 3) to normalised fp32 (N, 3, H, W) in channels_last on the device."""
    images = torch.from_numpy(np.ascontiguousarray(images_NHW3)).to(device).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in normalization)
    return (images - mean) / deviation


@torch.inference_mode()
def embed_images(model: PCB, images_NHW3: NDArray, device: torch.device, precision: Precision, flip: bool = False) -> NDArray:
    """Features of images of the model's size, float32 (N, D); with flip the mean of an image's and its
    mirror image's, of unit length again.
    """
    training = model.training
    model.eval()
    images = to_network(images_NHW3, model.backbone.normalization, device)
    with autocast(device, precision):
        features = model(images).features
        if flip:
            both = features + model(images.flip(3)).features
            features = nn.functional.normalize(both.unflatten(1, (model.parts, -1)), dim=2).flatten(1)
    model.train(training)
    return features.float().cpu().numpy()


Images = ArrayLike | Tensor | str | Path | Sequence[str | Path]


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
            batches = prefetch(
                lambda part: np.stack([read_image(Path(each), height, width) for each in part]),
                in_batches(images, EMBED_BATCH),
            )
        else:
            parts = in_batches(_colour_images(to_array(images)), EMBED_BATCH)
            batches = (np.stack([resize(each, height, width) for each in part]) for part in parts)
        features = [embed_images(self.model, batch, self.device, self.precision, flip) for batch in batches]
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
            embed_images(self.model, np.stack([image]), self.device, self.precision)
        stages = [f"stage {number}" for number in sorted(self.experiment.model.stages)]
        return attended_image(image, found.values(), stages, self.experiment.recipe)


def to_array(images: Images) -> NDArray:
    """Images as an array on the CPU: floating numbers as float32, whole numbers in the byte order of this machine.

    Raises:
        UserError: the images differ in shape.
    """
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


def load_pcb(folder: Path, experiment: ReidExperiment, device: torch.device) -> ImageEmbedder:
    """The model of a finished run or a bundle; raises as `fit_weights`."""
    weights = read_weights(weights_of(folder))
    num_ids = len(weights.get("classifiers.0.bias", (0,)))  # fit_weights explains weights of something else
    model = build_pcb(experiment.model, num_ids, trained=True)
    fit_weights(weights, model, weights_of(folder))
    return ImageEmbedder(model, experiment, device)


def describe_people(experiment: ReidExperiment, data: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    """What a run was trained on, for its card; `data` as environment.json has it."""
    return f"{scores['dataset']}: {data['train']:,} images of {data['identities']:,} identities"
