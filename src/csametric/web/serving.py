"""Listen on an address and answer there until interrupted."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING

from csametric.errors import UserError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

MAX_CONNECTIONS = 32  # each may hold an uploaded file of 20 MiB in memory


def check_packages() -> None:
    """Check that the packages of the extra `web` are installed.

    Raises:
        UserError: names what is missing and how to install it.
    """
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise UserError(f"serve needs {' and '.join(missing)}; pip install 'csametric[web]'")


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that accepts connections.

    Args:
        host: a name or an IPv4 or IPv6 address.
        port: 0 takes a free one.

    Raises:
        UserError: the host cannot be resolved, or the port is in use.

    Examples:
        >>> with listen("127.0.0.1", 0) as listener:
        ...     listener.getsockname()[0]
        '127.0.0.1'
    """
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


def run_until_interrupted(app: ASGIApp, listener: socket.socket) -> None:
    """Answer requests with a web application until Ctrl-C."""
    import uvicorn  # an extra

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


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach a host.

    Examples:
        >>> is_loopback("::1"), is_loopback("0.0.0.0")
        (True, False)
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address_of(host: str, listener: socket.socket) -> str:
    """The URL to open in a browser; localhost for a server that listens on all addresses of the machine.

    Examples:
        >>> with listen("0.0.0.0", 0) as listener:
        ...     address_of("0.0.0.0", listener).startswith("http://localhost:")
        True
    """
    name = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):
        name = "localhost"
    return f"http://{name}:{listener.getsockname()[1]}/"
