"""Engines compute the features of images of a model's size: PyTorch, and ONNX Runtime for processors, also in 8-bit integers.

The programs of ONNX Runtime are written into the run or bundle at first use, and again if its weights change.
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
from csametric.runs.folder import INT8_PROGRAM, PROGRAM, digest_of_weights
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
        """Embed images that have the model's size already.

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
    """Computes with a PyTorch model, which is in evaluation mode meanwhile."""

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
    """Computes with a program of ONNX Runtime that takes RGB in [0, 1], on the processor."""

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
    """An engine of PyTorch with each BatchNorm folded into its convolution: the same features up to rounding, sooner."""
    example = torch.zeros(1, 3, height, width, device=device)
    folded = fold_batch_norms(model, example)
    assert isinstance(folded, PCB)
    return TorchEngine(folded.to(memory_format=torch.channels_last), device, precision)


def onnx_engine(name: EngineName, folder: Path, model: PCB, experiment: ReidExperiment) -> OnnxEngine:
    """An engine of ONNX Runtime for a run or bundle, whose program is written there unless it is there already.

    Args:
        name: "onnxruntime" or "onnxruntime-int8".
        folder: of the run or bundle.
        model: on the CPU.
        experiment: of the run; for 8 bits, it names the training images.

    Raises:
        MissingOnnxError: packages are missing.
        ExportError: the network cannot be exported.
        UserError: the program cannot be written, or, for 8 bits, the training images cannot be read.
    """
    from csametric.inference import onnx, quantization

    onnx.check_onnx_packages()
    program, digest = folder / PROGRAM, digest_of_weights(folder)
    try:
        with lock_folder(folder, wait=True):  # processes under torchrun share one program
            if onnx.weights_digest(program) != digest:
                data = experiment.data
                onnx.write_program(onnx.image_target(model, data.height, data.width, digest), program)
            if name == "onnxruntime-int8":
                program = folder / INT8_PROGRAM
                if onnx.weights_digest(program) != digest:
                    quantization.write_int8(folder / PROGRAM, quantization.training_images(experiment.data), program)
    except OSError as error:
        raise UserError(
            f"the program for {name} cannot be written into {folder} ({error.strerror}); "
            "make the folder writable, or use the engine torch"
        ) from error
    return OnnxEngine(name, program, model.dimensions, model.parts)
