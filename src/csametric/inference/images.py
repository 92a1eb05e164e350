"""Embed images with a trained re-identification model and its preprocessing."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from csametric.attention.catalogue import PEERS
from csametric.attention.recording import recorded_attention
from csametric.data.loading import in_batches, prefetch
from csametric.data.transforms import read_image, resize
from csametric.errors import UserError
from csametric.inference.attended import AttendedImage, attended_image
from csametric.inference.compact import CompactFeatures, read_compact
from csametric.inference.engines import Engine, TorchEngine, folded_engine
from csametric.models.backbone import normalization
from csametric.models.pcb import PCB
from csametric.models.weights import load_strictly, read_state
from csametric.runs.experiment import ATTENTION_SETTINGS, PCBSettings, ReidExperiment
from csametric.runs.folder import WEIGHTS, fit_weights, read_weights, weights_of
from csametric.runs.precision import choose_precision
from csametric.runs.stored_calibration import StoredCalibration, read_calibration

EMBED_BATCH = 64
INITIAL_WEIGHTS = ("pretrained", "start_from", "new_heads")  # settings that do not matter once a model is trained
BACKBONE = "backbone."  # prefix of the tensors of the backbone and its attention

Images = ArrayLike | Tensor | str | Path | Sequence[str | Path]


def build_pcb(settings: PCBSettings, num_ids: int, trained: bool = False) -> PCB:
    """Build the model that the settings describe, in channels_last.

    Args:
        settings: the model's part of an experiment.
        num_ids: identities to classify.
        trained: whether the caller will load trained weights; initial weights are then not read.

    Raises:
        UserError: as `PCB`; or initial weights cannot be read or do not fit.
    """
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
        start_from_trained(model, Path(settings.start_from) / WEIGHTS, settings.new_heads)
    return model.to(memory_format=torch.channels_last)


def start_from_trained(model: PCB, weights: Path, new_heads: bool = False) -> None:
    """Load the weights of a trained PCB; a refined model keeps its own part classifier if the trained one has none.

    Args:
        model: changed in place.
        weights: a .pth or .safetensors file.
        new_heads: whether to take the backbone and its attention only, for other identities.

    Raises:
        UserError: the file cannot be read, or its weights do not fit.
    """
    state, initial = read_state(weights), model.state_dict()
    if new_heads:
        taken = {name: value for name, value in state.items() if name.startswith(BACKBONE)}
        own = {name: value for name, value in initial.items() if not name.startswith(BACKBONE)}
    else:
        taken = state
        own = {name: value for name, value in initial.items() if name.startswith("refinement.") and name not in state}
    load_strictly(model, taken | own, weights)


class ImageEmbedder:
    """A trained re-identification model with its preprocessing, as returned by `load`."""

    def __init__(
        self,
        model: PCB,
        experiment: ReidExperiment,
        device: torch.device,
        calibration: StoredCalibration | None = None,
        compact: CompactFeatures | None = None,
    ) -> None:
        self.model, self.experiment, self.device = model.to(device).eval(), experiment, device
        self._calibration, self._compact = calibration, compact
        self.precision = choose_precision(experiment.precision, device)
        self._engine: Engine | None = None  # made at first use

    def to(self, device: torch.device) -> Self:
        """Move the model to another device; an engine of ONNX Runtime stays on the CPU."""
        self.model.to(device)
        self.device, self.precision = device, choose_precision(self.experiment.precision, device)
        if isinstance(self._engine, TorchEngine):
            self._engine = None
        return self

    @property
    def engine(self) -> Engine:
        """What computes the features for `embed`: PyTorch with folded BatchNorms, unless another engine was assigned."""
        if self._engine is None:
            data = self.experiment.data
            self._engine = folded_engine(self.model, data.height, data.width, self.device, self.precision)
        return self._engine

    @engine.setter
    def engine(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def scoring_engine(self) -> Engine:
        """What computes the features for scores: the unfolded model, as in training, unless another engine was assigned."""
        if self._engine is None or isinstance(self._engine, TorchEngine):
            return TorchEngine(self.model, self.device, self.precision)
        return self._engine

    def embed(self, images: Images, flip: bool = False, dimensions: int | None = None, whiten: bool = False) -> Tensor:
        """Embed images.

        Args:
            images: the path of an image file, or paths; or RGB images of any size, uint8 (N, H, W, 3) or (N, 3, H, W), or
                floating-point numbers in [0, 1] of the same shapes. They are resized to the size the model was trained with.
            flip: whether to average the features of each image and its mirror image.
            dimensions: the number of compact features, the principal components of the training features; None for all.
            whiten: whether each dimension of compact features has the same variance; they then have unit length.

        Returns:
            Features (N, D), fp32 on the CPU; each part has unit length. Compact features (N, dimensions) have almost the same
            Euclidean distances.

        Raises:
            UserError: a wrong shape, type or range, no image at all, a file that cannot be read completely, or features that
                are not finite.
        """
        compact = None if dimensions is None else self.compact_for(dimensions)
        batches = self._resized_batches([images] if isinstance(images, str | Path) else images)
        features = [self.engine.embed(batch, flip) for batch in batches]
        if not features:
            raise UserError("need at least 1 image to embed, got 0; pass paths or arrays of images")
        full = finite_features(np.concatenate(features))
        if compact is None or dimensions is None:
            return full
        return torch.from_numpy(compact.project(full.numpy(), dimensions, whiten))

    def fingerprint(self, dimensions: int | None = None) -> str:
        """What identifies the features of this model: a digest of its weights and settings, image size, and projection.

        Features that different engines compute have the same fingerprint.

        Args:
            dimensions: of compact features; None for all.

        Raises:
            UserError: no such compact features.
        """
        settings = {name: value for name, value in asdict(self.experiment.model).items() if name not in INITIAL_WEIGHTS}
        about = [self.experiment.data.height, self.experiment.data.width, dimensions, settings]
        digest = hashlib.sha256(json.dumps(about).encode())
        tensors = [tensor.detach().cpu().contiguous().view(-1).numpy() for tensor in self.model.state_dict().values()]
        if dimensions is not None:
            tensors.append(self.compact_for(dimensions).components[:dimensions])
        for tensor in tensors:
            digest.update(tensor.tobytes())
        return digest.hexdigest()

    @property
    def compact_dimensions(self) -> int:
        """The largest number of dimensions of compact features; 0 if the run has none."""
        return 0 if self._compact is None else len(self._compact.components)

    def compact_for(self, dimensions: int) -> CompactFeatures:
        """The projection to compact features.

        Raises:
            UserError: the run has none, because it is of an older version, or fewer dimensions were fitted.
        """
        if self._compact is None:
            raise UserError(
                f"this model ({self.experiment.recipe}) has no compact features; train it again, or use all dimensions"
            )
        self._compact.check(dimensions)
        return self._compact

    @property
    def calibration(self) -> StoredCalibration:
        """What the distances of this model mean: thresholds and probabilities, and what they were fitted on.

        Raises:
            UserError: the run was not calibrated.
        """
        if self._calibration is None:
            raise UserError(
                f"this model ({self.experiment.recipe}) is not calibrated; calibrate the run first with `csametric calibrate`"
            )
        return self._calibration

    def threshold(self, fmr: float = 1e-3) -> float:
        """The largest distance at which two images count as the same identity, for a false match rate of at most `fmr`.

        Raises:
            UserError: the run was not calibrated, or on too few identities for this rate.
        """
        return self.calibration.threshold(fmr)

    def same(self, a: str | Path | ArrayLike, b: str | Path | ArrayLike) -> float:
        """The probability in [0, 1] that two images show the same identity, if half of all pairs do (see `calibration.prior`).

        Args:
            a: the path of an image, or RGB uint8 (H, W, 3).
            b: the other image.

        Raises:
            UserError: the run was not calibrated; or as `embed`.
        """
        calibration = self.calibration
        first, second = (self.embed(image if isinstance(image, str | Path) else np.asarray(image)[None])[0] for image in (a, b))
        return float(calibration.probability((first - second).norm().item()))

    def _resized_batches(self, images: ArrayLike | Tensor | Sequence[str | Path]) -> Iterable[NDArray]:
        """Read or convert images and resize them to the model's input size, uint8 (at most EMBED_BATCH, H, W, 3)."""
        height, width = self.experiment.data.height, self.experiment.data.width
        if isinstance(images, Sequence) and all(isinstance(image, str | Path) for image in images):

            def read_batch(paths: Sequence[str | Path]) -> NDArray:
                return np.stack([read_image(Path(path), height, width) for path in paths])

            return prefetch(read_batch, in_batches(images, EMBED_BATCH))
        batches = in_batches(_colour_images(to_array(images)), EMBED_BATCH)
        return (np.stack([resize(image, height, width) for image in batch]) for batch in batches)

    def attend(self, image_HW3: NDArray) -> AttendedImage:
        """Compute the attention maps of an image, after each stage that has attention.

        Args:
            image_HW3: RGB of any size, uint8 (H, W, 3).

        Raises:
            UserError: the network contains no compressed self-attention.
        """
        image = resize(image_HW3, self.experiment.data.height, self.experiment.data.width)
        with recorded_attention(self.model) as recorded:
            TorchEngine(self.model, self.device, self.precision).embed(np.stack([image]))
        stages = [f"stage {number}" for number in sorted(self.experiment.model.stages)]
        return attended_image(image, recorded.values(), stages, self.experiment.recipe)


def finite_features(features: NDArray) -> Tensor:
    """Features as a tensor.

    Raises:
        UserError: some are NaN or infinite, which damaged weights lead to.
    """
    if not np.isfinite(features).all():
        raise UserError("the model's features are NaN or infinite: its weights are damaged; get them again or train again")
    return torch.from_numpy(features)


def to_array(images: Images) -> NDArray:
    """Convert images to an array on the CPU: floating-point numbers to float32, integers to the native byte order.

    Raises:
        UserError: the images differ in shape.

    Examples:
        >>> to_array(torch.zeros(2, 3, 8, 8, dtype=torch.float64)).dtype
        dtype('float32')
    """
    if isinstance(images, Tensor):
        images = images.detach().cpu()
        images = images.float() if images.is_floating_point() else images
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise UserError("images must share one shape; pass paths of image files, or embed each shape separately") from error
    is_floating = np.issubdtype(array.dtype, np.floating)
    return array.astype(np.float32 if is_floating else array.dtype.newbyteorder("="), copy=False)


def _colour_images(images: NDArray) -> NDArray:
    """Convert RGB images to uint8 (N, H, W, 3)."""
    if images.ndim == 4 and images.shape[1] == 3 and images.shape[3] != 3:
        images = images.transpose(0, 2, 3, 1)
    if images.ndim != 4 or images.shape[3] != 3:
        raise UserError(f"images must be RGB, (N, H, W, 3) or (N, 3, H, W), got {images.shape}; convert them")
    if np.issubdtype(images.dtype, np.floating):
        lowest, highest = images.min(initial=0), images.max(initial=0)
        if not (lowest >= 0 and highest <= 1):  # also true for NaN
            raise UserError(
                f"floating-point images must lie in [0, 1], got {lowest:g} to {highest:g}; the model normalises them itself"
            )
        images = np.round(images * 255).astype(np.uint8)
    if images.dtype != np.uint8:
        raise UserError(f"images must be uint8 or floating-point numbers in [0, 1], got {images.dtype}; convert them")
    return images


def load_pcb(folder: Path, experiment: ReidExperiment, device: torch.device) -> ImageEmbedder:
    """Load the model of a finished run or a bundle; raises what `fit_weights` raises."""
    weights = read_weights(weights_of(folder))
    num_ids = len(weights.get("classifiers.0.bias", (0,)))  # if it is missing, fit_weights says so
    model = build_pcb(experiment.model, num_ids, trained=True)
    fit_weights(weights, model, weights_of(folder))
    return ImageEmbedder(model, experiment, device, read_calibration(folder), read_compact(folder, model.dimensions))


def describe_people(experiment: ReidExperiment, data: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    """Describe the training data of a run, for its model card.

    Args:
        experiment: unused; all kinds of experiment share this signature.
        data: the training data as environment.json records it.
        scores: the scores as scores.json records them.
    """
    return f"{scores['dataset']}: {data['train']:,} images of {data['identities']:,} identities"
