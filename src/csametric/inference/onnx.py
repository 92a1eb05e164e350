"""Write networks as ONNX models, and check their output against the networks' own."""

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from csametric.errors import UserError
from csametric.files import write_atomically
from csametric.models.pcb import PCB

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
WEIGHTS_DIGEST = "weights"  # key of the digest in the metadata of a program
MAX_DIFFERENCE = 1e-4  # allowed between the features of the ONNX model and the model's


class ExportError(RuntimeError):
    """ONNX export failed, or the output of the ONNX model differs from the model's."""


class MissingOnnxError(UserError):
    """A package that ONNX export needs is not installed."""


def check_onnx_packages() -> None:
    """Check that the packages of the extra csametric[onnx] are installed.

    Raises:
        MissingOnnxError: at least one of them is not.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingOnnxError(
            f"model.onnx needs {', '.join(missing)}; pip install 'csametric[onnx]', or write the bundle with onnx=False"
        )


@dataclass(frozen=True, kw_only=True)
class ExportTarget:
    """A network whose input needs no further preparation, and the names of its input and output."""

    network: nn.Module
    input_name: str
    output_name: str
    shape: tuple[int, int, int]  # of one input: channels, height, width
    max_input: float = 1.0  # its values are from 0 to this
    convention: str  # order of colours and range of values of the input
    digest: str = ""  # of the weights, see `weights_digest`


def write_onnx_model(target: ExportTarget, path: Path) -> float:
    """Write a network as an ONNX model for batches of any size, and check its output against the network's.

    Returns:
        The largest absolute difference between the outputs of the program and of the network, on three random inputs.

    Raises:
        ExportError: the network cannot be exported, or the program's output differs.
    """
    example = target.max_input * torch.rand(2, *target.shape, generator=torch.Generator().manual_seed(0))
    logging.getLogger("onnxscript.optimizer").setLevel(logging.ERROR)  # it warns of every Split that it leaves as it is
    try:
        program = torch.onnx.export(
            target.network,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[target.input_name],
            output_names=[target.output_name],
            verbose=False,
        )
    except Exception as error:
        raise ExportError(f"the network cannot be exported to ONNX ({type(error).__name__})") from error
    assert program is not None
    proto = program.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]  # they quote lines and paths of source files
    proto.doc_string = target.convention
    for key, value in (("input", target.convention), (WEIGHTS_DIGEST, target.digest)):
        proto.metadata_props.add(key=key, value=value)
    write_atomically(path, lambda out: out.write(proto.SerializeToString()))
    difference = _largest_difference(target, path, torch.cat([example, example.flip(3)])[:3])
    if not difference <= MAX_DIFFERENCE:  # also true for NaN
        raise ExportError(
            f"the features of the ONNX model differ from the model's by {difference:.1e}, more than {MAX_DIFFERENCE}"
        )
    return difference


def weights_digest(program: Path) -> str:
    """The digest of the weights that an ONNX model was written from; "" if unknown or unreadable."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        properties = onnx.load(program).metadata_props
    except (OSError, DecodeError):
        return ""
    return next((item.value for item in properties if item.key == WEIGHTS_DIGEST), "")


def image_target(model: PCB, height: int, width: int, digest: str) -> ExportTarget:
    """A PCB as a program that takes images in [0, 1]."""
    return ExportTarget(
        network=NormalizingPCB(model).eval(),
        input_name="images",
        output_name="features",
        shape=(3, height, width),
        convention="RGB in [0, 1]; normalised inside, so do not subtract a mean",
        digest=digest,
    )


class NormalizingPCB(nn.Module):
    """A PCB that normalises its images itself: (N, 3, H, W) in [0, 1] -> features (N, D)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: PCB) -> None:
        super().__init__()
        self.model = model
        for name, values in zip(("mean", "deviation"), model.backbone.normalization, strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None])

    def forward(self, images_N3HW: Tensor) -> Tensor:
        """Normalise and embed images in [0, 1], (N, 3, H, W) -> (N, D)."""
        return self.model((images_N3HW - self.mean) / self.deviation).features


@torch.inference_mode()
def _largest_difference(target: ExportTarget, program: Path, inputs: Tensor) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(program), providers=["CPUExecutionProvider"])
    (features,) = session.run([target.output_name], {target.input_name: inputs.numpy()})
    return float(np.abs(features - target.network(inputs).numpy()).max())
