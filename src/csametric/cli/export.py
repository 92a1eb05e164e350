"""export: a run as a folder to hand on."""

from pathlib import Path
from typing import Annotated

import typer

from csametric.inference.bundle import write_bundle
from csametric.inference.onnx import ExportError, MissingOnnxError


def export(
    run: Annotated[Path, typer.Argument(help="A finished run, e.g. runs/pcb_csa.")],
    bundle: Annotated[Path, typer.Option("--bundle", help="The folder to make.")],
    no_onnx: Annotated[bool, typer.Option("--no-onnx", help="Leave model.onnx out.")] = False,
) -> None:
    """Make a bundle: weights (safetensors), an ONNX program, the experiment, and a model card with the measured figures.

    `csametric.load(FOLDER)` loads it back; no path of this machine is in it.

    Example: csametric export runs/pcb_csa --bundle pcb_csa_market
    """
    try:
        write_bundle(run, bundle, onnx=not no_onnx)
    except (ExportError, MissingOnnxError) as error:
        raise type(error)(f"{error} (on the command line: --no-onnx)") from error
    for path in sorted(bundle.iterdir()):
        print(f"{path}  {path.stat().st_size / 2**20:,.1f} MiB")
