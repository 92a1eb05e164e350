"""serve: the attention explorer in a browser."""

import errno
import socket
from contextlib import suppress
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from csametric.errors import UserError
from csametric.inference.load import load

if TYPE_CHECKING:
    from starlette.types import ASGIApp

MAX_CONNECTIONS = 32  # each may hold an uploaded file of 20 MiB in memory


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
    _check_packages()
    app = _application(run, image, host)
    with _listen(host, port) as listener:
        address = f"http://{_host_in_url(host)}:{listener.getsockname()[1]}/"
        if not _is_loopback(host):
            print(f"csametric: anyone who can reach {host} can send images to this server and see the first image")
        print(f"serving {run} at {address} (press Ctrl-C to stop)", flush=True)
        if open_browser:
            import webbrowser

            webbrowser.open(address)
        _run(app, listener)


def _check_packages() -> None:
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise UserError(f"serve needs {' and '.join(missing)}; pip install 'csametric[web]'")


def _application(run: Path, image: Path | None, host: str) -> "ASGIApp":
    """Build the web application around a run whose model is warmed up, so that the first image is answered without delay."""
    from csametric.web.server import make_app, read_picture

    if image is not None and not image.is_file():
        raise UserError(f"image {image} does not exist; correct the path")
    first = None if image is None else read_picture(image.read_bytes())
    model = load(run)
    model.attend(np.zeros((64, 64, 3), np.uint8))
    return make_app(model.attend, f"What {run.resolve().name} attends to", first, host)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        raise UserError(f"host {host} cannot be resolved ({error.strerror}); correct --host") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} of {host} is in use; use another, e.g. --port {port + 1}, or --port 0 for any free one"
            ) from error
        raise UserError(f"cannot listen on {host}, port {port} ({error.strerror}); use another --host or --port") from error


def _run(app: "ASGIApp", listener: socket.socket) -> None:
    import uvicorn

    from csametric.web.protocol import HeaderTimeoutProtocol

    config = uvicorn.Config(
        app,
        http=HeaderTimeoutProtocol,
        log_level="warning",
        lifespan="off",
        ws="none",
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=2,
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host_in_url(host: str) -> str:
    """A host as written in a URL; localhost for a server that listens on all addresses of the machine."""
    if host in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host
