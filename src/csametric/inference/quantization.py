"""An ONNX model in 8-bit integers; the ranges of its activations are measured on training images."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from csametric.data.datasets import read_dataset
from csametric.data.loading import in_batches, read_images
from csametric.errors import UserError
from csametric.files import write_atomically
from csametric.runs.experiment import ReidData

EXACT = 2  # convolutions that stay in fp32
IMAGES, BATCH = 256, 16  # training images to measure ranges on, and how many at once


def training_images(data: ReidData) -> NDArray:
    """Training images spread evenly over a dataset, uint8 (at most IMAGES, H, W, 3).

    Raises:
        UserError: the dataset cannot be read.
    """
    try:
        records = read_dataset(data.kind, data.path, data.camera_pattern).train
        chosen = np.linspace(0, len(records) - 1, min(IMAGES, len(records))).astype(int)
        return read_images([records[index] for index in chosen], data.height, data.width)
    except UserError as error:
        raise UserError(
            f"8-bit integers need the training images, to measure activations ({error}); use the engine onnxruntime"
        ) from error


def write_int8(program: Path, images_NHW3: NDArray, path: Path) -> None:
    """Write an ONNX model whose convolutions use 8-bit integers, with one range per output channel of weights.

    The first two convolutions stay in fp32, because they lose most. Weights use 7 bits, because sums of products with 8-bit
    weights saturate on processors without VNNI.

    Args:
        program: the fp32 ONNX model; takes "images", RGB in [0, 1].
        images_NHW3: RGB, uint8 (N, H, W, 3), to measure the ranges on.
        path: where to write; keeps the metadata of the fp32 model.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[NDArray] = iter(in_batches(images_NHW3, BATCH))

        def get_next(self) -> dict[str, NDArray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.transpose(0, 3, 1, 2).astype(np.float32) / 255}

    with TemporaryDirectory() as folder:
        prepared, quantized = Path(folder, "prepared.onnx"), Path(folder, "quantized.onnx")
        quant_pre_process(str(program), str(prepared), skip_symbolic_shape=True)
        first_convolutions = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"][:EXACT]
        quantize_static(
            str(prepared),
            str(quantized),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=first_convolutions,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        model = onnx.load(quantized)
    del model.metadata_props[:]
    model.metadata_props.extend(onnx.load(program).metadata_props)
    write_atomically(path, lambda out: out.write(model.SerializeToString()))
