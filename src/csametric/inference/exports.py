"""Exports of a re-identification model for other programs ("consumers"), each of which normalises images in its own way.

An export is a folder with the model; with `embed.py`, a short script that prepares images exactly as the consumer does; and
with any other files that the consumer reads.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from torch import Tensor, nn

from csametric.data.transforms import read_image
from csametric.errors import UserError
from csametric.files import replace_folder, write_text
from csametric.inference.compact import CompactFeatures
from csametric.inference.images import ImageEmbedder
from csametric.inference.onnx import ExportError, ExportTarget, NormalizingPCB, check_onnx_packages, write_onnx_model

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ONNX = "model.onnx"
SCRIPT = "embed.py"

OPENVINO_CONVERSION = """
import sys
import openvino
openvino.save_model(openvino.convert_model(sys.argv[1]), sys.argv[2], compress_to_fp16=True)
"""

ConsumerName = Literal["onnx", "boxmot", "deepstream", "openvino"]


@dataclass(frozen=True)
class Consumer:
    """A program that runs exported models."""

    convention: str  # order of colours and range of values that it gives to the model
    to_unit_range: Callable[[Tensor], Tensor]  # from this input, (N, 3, H, W), to RGB in [0, 1]
    max_input: float  # upper end of the range in which the export is tried
    has_unit_length: bool  # whether features get unit length, because the consumer compares them by cosine
    min_cosine: float = 0.9999  # between the features of the export and of the model


def _from_imagenet(images: Tensor) -> Tensor:
    mean, deviation = (images.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    return images * deviation + mean


def _from_bgr_bytes(images: Tensor) -> Tensor:
    return images.flip(1) / 255


CONSUMERS: dict[str, Consumer] = {
    "onnx": Consumer("RGB in [0, 1]", lambda images: images, 1.0, has_unit_length=False),
    "boxmot": Consumer("RGB, normalised by ImageNet's mean and deviation", _from_imagenet, 1.0, has_unit_length=True),
    "deepstream": Consumer("RGB in [0, 1]", lambda images: images, 1.0, has_unit_length=True),
    "openvino": Consumer("BGR in [0, 255]", _from_bgr_bytes, 255.0, has_unit_length=True, min_cosine=0.999),  # 16-bit weights
}


class _Exported(nn.Module):
    """A model from the input of a consumer to the features that it wants: (N, 3, H, W) -> (N, D)."""

    def __init__(
        self, model: ImageEmbedder, consumer: Consumer, compact: CompactFeatures | None, dimensions: int, whiten: bool
    ) -> None:
        super().__init__()
        self.embed, self.to_unit_range = NormalizingPCB(model.model), consumer.to_unit_range
        self.has_unit_length = consumer.has_unit_length or whiten
        self.is_compact = compact is not None
        if compact is not None:
            scales = compact.deviations[:dimensions, None] if whiten else 1
            self.register_buffer("mean", torch.from_numpy(compact.mean))
            self.register_buffer("components", torch.from_numpy(compact.components[:dimensions] / scales))

    def forward(self, images: Tensor) -> Tensor:
        """Embed images."""
        features = self.embed(self.to_unit_range(images))
        if self.is_compact:
            features = (features - self.mean) @ self.components.T
        return nn.functional.normalize(features) if self.has_unit_length else features


def export_for(
    model: ImageEmbedder, name: ConsumerName, folder: Path, dimensions: int | None = None, whiten: bool = False
) -> float:
    """Write the export of a model for a consumer, and check it on a photograph that the script in it prepares.

    The input is called "images", float32 (N, 3, H, W); the output "features", (N, D); N is free.

    Args:
        model: a loaded run or bundle.
        name: the consumer, a key of `CONSUMERS`.
        folder: where to write it; a folder with files is refused.
        dimensions: the number of compact features, which become part of the model; None for all.
        whiten: whether to whiten compact features.

    Returns:
        The cosine between the features of the export and of `model.embed`.

    Raises:
        UserError: the folder holds files, a package is missing, or more dimensions than were fitted.
        ExportError: the network cannot be exported, or its features differ.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already; choose another folder")
    _check_packages(name)
    consumer, data = CONSUMERS[name], model.experiment.data
    compact = None if dimensions is None else model.compact_for(dimensions)
    features = model.model.dimensions if dimensions is None else dimensions
    target = ExportTarget(
        network=_Exported(model, consumer, compact, features, whiten).eval(),
        input_name="images",
        output_name="features",
        shape=(3, data.height, data.width),
        max_input=consumer.max_input,
        convention=consumer.convention,
    )
    values = {
        "name": model.experiment.recipe,
        "height": data.height,
        "width": data.width,
        "dimensions": features,
        "convention": consumer.convention,
        "mean": list(IMAGENET_MEAN),
        "deviation": list(IMAGENET_DEVIATION),
    }
    with replace_folder(folder.expanduser().resolve()) as new:
        write_onnx_model(target, new / ONNX)
        _write_consumer_files(name, new, values)
        cosine = _check(model, new / SCRIPT, dimensions, whiten)
        if not cosine >= consumer.min_cosine:  # also true for NaN
            raise ExportError(
                f"the export for {name} gives other features than the model (cosine {cosine:.5f}); please file a bug report"
            )
    return cosine


def _check_packages(name: str) -> None:
    check_onnx_packages()
    if name == "openvino" and find_spec("openvino") is None:
        raise UserError("an export for openvino needs the package openvino; pip install 'csametric[openvino]'")


def _write_consumer_files(name: str, folder: Path, values: dict[str, Any]) -> None:
    """Write the script and the consumer's other files; model.onnx must exist already."""
    templates = Environment(
        loader=PackageLoader("csametric.inference"), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    write_text(folder / SCRIPT, templates.get_template("embed.py.txt").render(consumer=name, **values))
    if name == "boxmot":
        metadata = {
            "schema_version": 1,
            "model_name": values["name"],
            "preprocess": "resize",
            "img_size": [values["height"], values["width"]],
        }
        write_text(folder / f"{ONNX}.metadata.json", json.dumps(metadata, indent=1))
    if name == "deepstream":
        write_text(folder / "config_tracker.yml", templates.get_template("config_tracker.yml").render(**values))
    if name == "openvino":
        _convert_to_openvino(folder)


def _convert_to_openvino(folder: Path) -> None:
    """Replace the ONNX model by an intermediate representation with 16-bit weights."""
    _run_python("-c", OPENVINO_CONVERSION, str(folder / ONNX), str(folder / "model.xml"))
    (folder / ONNX).unlink()


def _run_python(*arguments: str) -> str:
    """Run Python in another process and return its output, because once OpenVINO is loaded an interrupt kills the process.

    Raises:
        ExportError: Python failed.
    """
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ExportError(f"the export cannot be written or run ({reason})")
    return done.stdout


def _check(model: ImageEmbedder, script: Path, dimensions: int | None, whiten: bool) -> float:
    """The cosine between the features of the script and of the model, for a crop of a real photograph."""
    data = model.experiment.data
    photograph = Path(str(files("skimage") / "data" / "astronaut.png"))
    image = read_image(
        photograph, data.height, data.width
    )  # of the model's input size, so that the consumer does not resize it
    with TemporaryDirectory() as folder:
        crop = Path(folder, "crop.png")
        Image.fromarray(image).save(crop)
        exported = np.array(json.loads(_run_python(str(script), str(crop))))
    own = model.embed(image[None], dimensions=dimensions, whiten=whiten)[0].numpy()
    return float(exported @ own / (np.linalg.norm(exported) * np.linalg.norm(own)))
