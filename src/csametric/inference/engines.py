"""Engines compute features: PyTorch, or ONNX Runtime on the CPU, optionally with 8-bit integers.

The ONNX models are written into the run or bundle at first use, and again if its weights change.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from csametric.errors import UserError
from csametric.files import lock_folder
from csametric.models.backbone import Normalization
from csametric.models.folding import fold_batch_norms
from csametric.models.pcb import PCB
from csametric.runs.experiment import ReidExperiment
from csametric.runs.folder import INT8_MODEL, ONNX_MODEL, digest_of_weights
from csametric.runs.precision import Precision, autocast

EngineName = Literal["torch", "onnxruntime", "onnxruntime-int8"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


class Engine(ABC):
    """Computes features of images: uint8 (N, H, W, 3) -> float32 (N, D).

    Attributes:
        name: one of ENGINES.
        dimensions: D.
    """

    def __init__(self, name: EngineName, dimensions: int, parts: int) -> None:
        self.name, self.dimensions, self.parts = name, dimensions, parts

    def embed(self, images_NHW3: NDArray, flip: bool = False) -> NDArray:
        """Embed images that have the model's input size already.

        Args:
            images_NHW3: RGB, uint8 (N, H, W, 3).
            flip: whether to average the features of each image and its mirror image; each part gets unit length again.

        Returns:
            float32 (N, D).
        """
        features = self._embed(images_NHW3)
        if not flip:
            return features
        summed = torch.from_numpy(features + self._embed(images_NHW3[:, :, ::-1]))
        return nn.functional.normalize(summed.unflatten(1, (self.parts, -1)), dim=2).flatten(1).numpy()

    @abstractmethod
    def _embed(self, images_NHW3: NDArray) -> NDArray: ...


class TorchEngine(Engine):
    """Computes with a PyTorch model, which is put into evaluation mode for the call."""

    def __init__(self, model: PCB, device: torch.device, precision: Precision) -> None:
        super().__init__("torch", model.dimensions, model.parts)
        self.model, self.device, self.precision = model, device, precision

    @torch.inference_mode()
    def _embed(self, images_NHW3: NDArray) -> NDArray:
        was_training = self.model.training
        self.model.eval()
        images = prepare_images(images_NHW3, self.model.backbone.normalization, self.device)
        with autocast(self.device, self.precision):
            features = self.model(images).features
        self.model.train(was_training)
        return features.float().cpu().numpy()


class OnnxEngine(Engine):
    """Computes with ONNX Runtime on the CPU; the ONNX model takes RGB in [0, 1]."""

    def __init__(self, name: EngineName, program: Path, dimensions: int, parts: int) -> None:
        import onnxruntime

        super().__init__(name, dimensions, parts)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(str(program), options, providers=["CPUExecutionProvider"])

    def _embed(self, images_NHW3: NDArray) -> NDArray:
        images = np.ascontiguousarray(images_NHW3.transpose(0, 3, 1, 2), dtype=np.float32) / 255
        (features,) = self.session.run(None, {self.session.get_inputs()[0].name: images})
        return features


def prepare_images(images_NHW3: NDArray, normalization: Normalization, device: torch.device) -> Tensor:
    """Normalise images for a network.

    Args:
        images_NHW3: RGB, uint8 (N, H, W, 3).
        normalization: what the network expects.
        device: where to put the result.

    Returns:
        fp32 (N, 3, H, W) in channels_last.
    """
    images = torch.from_numpy(np.ascontiguousarray(images_NHW3)).to(device).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in normalization)
    return (images - mean) / deviation


def folded_engine(model: PCB, height: int, width: int, device: torch.device, precision: Precision) -> TorchEngine:
    """A PyTorch engine with each BatchNorm folded into its convolution: the same features up to rounding, faster."""
    example = torch.zeros(1, 3, height, width, device=device)
    folded = fold_batch_norms(model, example)
    assert isinstance(folded, PCB)
    return TorchEngine(folded.to(memory_format=torch.channels_last), device, precision)


def onnx_engine(name: EngineName, folder: Path, model: PCB, experiment: ReidExperiment) -> OnnxEngine:
    """An ONNX Runtime engine for a run or bundle; writes the ONNX model into it unless it is there already.

    Args:
        name: "onnxruntime" or "onnxruntime-int8".
        folder: the run or bundle.
        model: the network, on the CPU.
        experiment: the run's settings; 8-bit integers need the training images that they name.

    Raises:
        MissingOnnxError: packages are missing.
        ExportError: the network cannot be exported.
        UserError: the ONNX model cannot be written, or, for 8-bit integers, the training images cannot be read.
    """
    from csametric.inference import onnx, quantization

    onnx.check_onnx_packages()
    program, digest = folder / ONNX_MODEL, digest_of_weights(folder)
    try:
        with lock_folder(folder, wait=True):  # processes under torchrun share one ONNX model
            if onnx.weights_digest(program) != digest:
                data = experiment.data
                onnx.write_onnx_model(onnx.image_target(model, data.height, data.width, digest), program)
            if name == "onnxruntime-int8":
                program = folder / INT8_MODEL
                if onnx.weights_digest(program) != digest:
                    quantization.write_int8(folder / ONNX_MODEL, quantization.training_images(experiment.data), program)
    except OSError as error:
        raise UserError(
            f"the ONNX model for {name} cannot be written into {folder} ({error.strerror}); "
            "make the folder writable, or use the engine torch"
        ) from error
    return OnnxEngine(name, program, model.dimensions, model.parts)
