"""Images per second of `embed` on a processor: PCB + CSA on ResNet-50 (384 x 128) and EfficientNet-Lite0 (192 x 64).

Every engine is timed beside the same model run plainly, in fp32, with contiguous images and without folding, all interleaved.
With --files, crops are read from JPEG files too, and torchreid's FeatureExtractor (its ResNet-50 at 384 x 128) takes
part if torchreid is installed.
"""

import argparse
import copy
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from bench.measure import RESULTS, interleaved, middle, ratio, write_results
from csametric import PCB
from csametric.cli.tables import print_table
from csametric.data.loading import in_batches, prefetch
from csametric.data.transforms import read_image
from csametric.inference import onnx, quantization
from csametric.inference.engines import OnnxEngine, folded_engine, prepare_images
from csametric.runs.precision import choose_precision

SIZES = {"resnet50": (384, 128), "tf_efficientnet_lite0": (192, 64)}  # height and width in pixels
PLAIN = "PyTorch, fp32, contiguous"
CPU = torch.device("cpu")

Embed = Callable[[NDArray], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32, help="images")
    parser.add_argument("--backbone", choices=SIZES, action="append", help="by default both")
    parser.add_argument("--files", action="store_true", help="start from JPEG files of 128 x 64 pixels")
    arguments = parser.parse_args()
    rows = []
    for backbone in arguments.backbone or SIZES:
        with TemporaryDirectory() as folder:
            engines = engines_of(backbone, Path(folder))
            height, width = SIZES[backbone]
            if arguments.files:
                files = write_crops(Path(folder) / "crops", 4 * arguments.batch)
                calls = {name: file_call(embed, files, arguments.batch, height, width) for name, embed in engines.items()}
                calls |= torchreid_call(files, arguments.batch)
            else:
                files, images = [], noise(arguments.batch, height, width)
                calls = {name: image_call(embed, images) for name, embed in engines.items()}
            seconds = interleaved(calls, arguments.rounds, warm_up=1)
        images_per_call = len(files) or arguments.batch
        rows += [{"backbone": backbone, "engine": name, "images": images_per_call, "seconds": seconds[name]} for name in calls]
        print_rates(f"{backbone} at {height} x {width}, batch {arguments.batch}", seconds, images_per_call)
    print(f"results: {write_results('embedding_files' if arguments.files else 'embedding', rows, arguments.results)}")


def engines_of(backbone: str, folder: Path) -> dict[str, Embed]:
    """Functions from images, uint8 (N, H, W, 3), to features, by the name of the engine."""
    torch.manual_seed(0)
    model = PCB(backbone, num_ids=751, alpha=0.5).eval().to(memory_format=torch.channels_last)
    height, width = SIZES[backbone]
    precision = choose_precision("auto", CPU)
    program, int8 = folder / "model.onnx", folder / "int8.onnx"
    onnx.write_onnx_model(onnx.image_target(model, height, width, ""), program)
    quantization.write_int8(program, noise(64, height, width), int8)
    return {
        PLAIN: plain(copy.deepcopy(model)),
        f"torch, {precision.name}": folded_engine(model, height, width, CPU, precision).embed,
        "onnxruntime": OnnxEngine("onnxruntime", program, model.dimensions, model.parts).embed,
        "onnxruntime-int8": OnnxEngine("onnxruntime-int8", int8, model.dimensions, model.parts).embed,
    }


def plain(model: nn.Module) -> Embed:
    """The model as a user of PyTorch would call it first."""
    assert isinstance(model, PCB)
    model.to(memory_format=torch.contiguous_format)

    @torch.inference_mode()
    def embed(images_NHW3: NDArray) -> NDArray:
        return model(prepare_images(images_NHW3, model.backbone.normalization, CPU).contiguous()).features.numpy()

    return embed


def noise(count: int, height: int, width: int) -> NDArray:
    """Random images, uint8 (count, height, width, 3)."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def write_crops(folder: Path, count: int) -> list[Path]:
    """Write random crops of the size that Market-1501 has, and return their paths."""
    folder.mkdir()
    paths = [folder / f"{index}.jpg" for index in range(count)]
    for path, crop in zip(paths, noise(count, 128, 64), strict=True):
        Image.fromarray(crop).save(path)
    return paths


def image_call(embed: Embed, images: NDArray) -> Callable[[], Any]:
    return lambda: embed(images)


def file_call(embed: Embed, files: list[Path], batch: int, height: int, width: int) -> Callable[[], None]:
    """Return a function that reads the files while it embeds the batches before them."""

    def read(paths: list[Path]) -> NDArray:
        return np.stack([read_image(path, height, width) for path in paths])

    def call() -> None:
        for images in prefetch(read, in_batches(files, batch)):
            embed(images)

    return call


def torchreid_call(files: list[Path], batch: int) -> dict[str, Callable[[], Any]]:
    """The extractor of torchreid with its own ResNet-50 on the files, if it is installed."""
    if find_spec("torchreid") is None:
        return {}
    build_model = import_module("torchreid.reid.models").build_model
    extractor = import_module("torchreid.reid.utils").FeatureExtractor
    weights = files[0].with_name("torchreid.pth")
    torch.save(build_model("resnet50", 1, pretrained=False).state_dict(), weights)  # otherwise it would download some
    extract = extractor("resnet50", str(weights), image_size=SIZES["resnet50"], device="cpu", verbose=False)
    return {"torchreid, ResNet-50": lambda: [extract([str(path) for path in paths]) for paths in in_batches(files, batch)]}


def print_rates(title: str, seconds: dict[str, list[float]], images: int) -> None:
    rows = []
    for name, times in seconds.items():
        median, lower, upper = ratio(seconds, PLAIN, name)
        rows.append([name, f"{images / middle(times):.1f}", f"{median:.2f} ({lower:.2f}-{upper:.2f})"])
    print_table(title, ["engine", "images/s", "times the plain model"], rows)


if __name__ == "__main__":
    main()
