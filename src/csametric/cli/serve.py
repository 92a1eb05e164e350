"""serve: the attention explorer in a browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import csametric
from csametric.cli.lazy import lazy_imports
from csametric.errors import UserError, wrong_path

with lazy_imports():
    import numpy as np

    from csametric.web import server, serving

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def serve(
    run: Annotated[Path, typer.Argument(help="A folder that `train` wrote, e.g. runs/lite_pcb_csa.")],
    image: Annotated[Path | None, typer.Option("--image", help="The image that the page shows first.")] = None,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 8765,
    open_browser: Annotated[bool, typer.Option("--open", help="Also open the page in a browser.")] = False,
) -> None:
    """Serve a page that shows what each position of an image attends to; other images can be dropped on the page.

    Example: csametric serve runs/lite_pcb_csa --image photo.jpg --open
    """
    serving.check_packages()
    app = _application(run, image, host)
    with serving.listen(host, port) as listener:
        address = serving.address_of(host, listener)
        if not serving.is_loopback(host):
            print(f"csametric: anyone who can reach {host} can send images to this server and see the first image")
        print(f"serving {run} at {address} (press Ctrl-C to stop)", flush=True)
        if open_browser:
            webbrowser.open(address)
        serving.run_until_interrupted(app, listener)


def _application(run: Path, image: Path | None, host: str) -> ASGIApp:
    """Build the web application around a run whose model is warmed up, so that the first image is answered without delay."""
    if image is not None and not image.is_file():
        raise UserError(f"{wrong_path('image', image)}; correct the path")
    first = None if image is None else _read_first(image)
    model = csametric.load(run)
    model.attend(np.zeros((64, 64, 3), np.uint8))
    return server.make_app(model.attend, f"What {run.resolve().name} attends to", first, host)


def _read_first(image: Path) -> np.ndarray:
    try:
        return server.read_picture(image.read_bytes())
    except UserError as error:
        raise UserError(f"{image}: {error}") from error
