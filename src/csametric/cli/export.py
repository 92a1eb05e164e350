"""export: a run as a bundle, a folder to share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from csametric.cli.lazy import lazy_imports

with lazy_imports():
    from csametric.inference import bundle as bundles
    from csametric.inference import onnx


def export(
    run: Annotated[Path, typer.Argument(help="A finished run, e.g. runs/pcb_csa.")],
    bundle: Annotated[Path, typer.Option("--bundle", help="The folder to create.")],
    no_onnx: Annotated[bool, typer.Option("--no-onnx", help="Do not write model.onnx.")] = False,
) -> None:
    """Export a run as a bundle to share: weights (safetensors), an ONNX model, the experiment, and a model card with scores.

    `csametric.load(FOLDER)` loads it. A bundle contains no paths from your machine.

    Example: csametric export runs/pcb_csa --bundle pcb_csa_market
    """
    try:
        bundles.write_bundle(run, bundle, onnx=not no_onnx)
    except (onnx.ExportError, onnx.MissingOnnxError) as error:
        raise type(error)(f"{error} (on the command line: --no-onnx)") from error
    for path in sorted(bundle.iterdir()):
        print(f"{path}  {path.stat().st_size / 2**20:,.1f} MiB")
