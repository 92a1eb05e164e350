"""export: a run as a bundle, a folder to share, or as a model for another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import csametric
from csametric.cli.datasets import Dimensions, Whiten
from csametric.cli.lazy import lazy_imports
from csametric.errors import UserError

with lazy_imports():
    from csametric.inference import bundle as bundles
    from csametric.inference import exports, images, onnx


def export(
    run: Annotated[Path, typer.Argument(help="A finished run, e.g. runs/pcb_csa.")],
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="The folder to create for a bundle.", metavar="FOLDER")
    ] = None,
    consumer: Annotated[
        Literal["onnx", "boxmot", "deepstream", "openvino"] | None,
        typer.Option(
            "--for", help="Export the model for one of these programs instead, with the normalisation that it expects."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="With --for: the folder to create.", metavar="FOLDER")] = None,
    dimensions: Dimensions = None,
    whiten: Whiten = False,
    no_onnx: Annotated[bool, typer.Option("--no-onnx", help="Do not write model.onnx.")] = False,
) -> None:
    """Export a run as a bundle to share: weights (safetensors), an ONNX model, the training settings, and a model card.

    `csametric.load(FOLDER)` loads it. A bundle contains no paths from your machine. With --for, export the model alone for
    ONNX Runtime, BoxMOT, DeepStream or OpenVINO, which each normalise images in their own way.

    Example: csametric export runs/pcb_csa --bundle pcb_csa_market

    Example: csametric export runs/pcb_csa --for boxmot --out tracker --dimensions 512
    """
    if consumer is not None:
        if bundle is not None or out is None:
            raise UserError("--for needs --out FOLDER, and no --bundle")
        _export_for(run, consumer, out, dimensions, whiten)
        return
    if bundle is None or out is not None or dimensions is not None or whiten:
        raise UserError("give --bundle FOLDER for a bundle; --out, --dimensions and --whiten need --for")
    try:
        bundles.write_bundle(run, bundle, onnx=not no_onnx)
    except (onnx.ExportError, onnx.MissingOnnxError) as error:
        raise type(error)(f"{error} (on the command line: --no-onnx)") from error
    _print_files(bundle)


def _export_for(run: Path, consumer: exports.ConsumerName, out: Path, dimensions: int | None, whiten: bool) -> None:
    """Export for a consumer and print what was written."""
    model = csametric.load(run, device="cpu")
    if not isinstance(model, images.ImageEmbedder):
        raise UserError(f"{run} is a descriptor; export it as a bundle, which has model.onnx")
    cosine = exports.export_for(model, consumer, out, dimensions, whiten)
    _print_files(out)
    print(
        f"input: {exports.CONSUMERS[consumer].convention}; checked on a photograph: cosine {cosine:.6f} with the features of "
        "the model"
    )


def _print_files(folder: Path) -> None:
    """Print the files of a folder with their sizes."""
    for path in sorted(folder.iterdir()):
        print(f"{path}  {path.stat().st_size / 2**20:,.1f} MiB")
