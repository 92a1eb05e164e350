"""The server of the attention explorer: it serves one page, and computes the attention for pictures sent from it.

Pictures arrive as request bodies, never as file names. They are processed one at a time in a worker thread, so the page stays
responsive and memory holds only one decoded picture.
"""

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from csametric.data.decoding import Reason, UnreadableImageError, decode_colours
from csametric.errors import UserError
from csametric.reports.attention_report import explorer_view
from csametric.visualization.explorer import explorer_assets

if TYPE_CHECKING:
    from csametric.inference.attended import AttendedImage

MEBIBYTE = 2**20
MAX_BYTES = 20 * MEBIBYTE  # of a picture's file
MAX_PIXELS = 50_000_000
SECONDS_TO_SEND = 60  # for the body of a request
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
STATUS: dict[Reason, int] = {"format": 415, "mode": 415, "size": 413, "damage": 400}  # HTTP status if decoding fails
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

Attend = Callable[[NDArray], "AttendedImage"]


class RefusedError(UserError):
    """A request that the server refuses."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status  # HTTP status


def make_app(attend: Attend, title: str, first: NDArray | None = None, host: str = "127.0.0.1") -> ASGIApp:
    """Create the application: GET / returns the page, POST /attention takes an image file and returns its view as JSON.

    Args:
        attend: maps an RGB image of any size, uint8 (H, W, 3), to its attention; never called concurrently.
        title: the heading of the page.
        first: the picture that the page shows first, uint8 (H, W, 3).
        host: the address that the server listens on. Requests for any host but this one and the loopback are refused, to
            prevent DNS rebinding; if it stands for all addresses of the machine, every host is accepted.

    Raises:
        UserError: `first` is given and the network lacks compressed self-attention.
    """
    view = None if first is None else explorer_view(attend(first))
    page, policy = _page(title, view)
    one_at_a_time = anyio.CapacityLimiter(1)

    async def explore(request: Request) -> Response:
        return HTMLResponse(page)

    async def attention(request: Request) -> Response:
        _refuse_other_sites(request)
        with _time_limit():
            data = await _body(request)
        compute = partial(_view_of_file, data, attend)
        return JSONResponse(await anyio.to_thread.run_sync(compute, limiter=one_at_a_time))

    app = Starlette(
        routes=[Route("/", explore), Route("/attention", attention, methods=["POST"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_allowed_hosts(host), www_redirect=False)],
        exception_handlers={UserError: _user_error, ClientDisconnect: _client_gone, Exception: _internal_error},
    )
    return Hardened(app, policy)


def read_picture(data: bytes) -> NDArray:
    """Decode an image file as RGB, uint8 (H, W, 3), rotated by its EXIF orientation.

    Raises:
        RefusedError: the format is not one of `FORMATS`, the colours are not 8-bit, the image is damaged, or it has more than
            50 million pixels.
    """
    try:
        return decode_colours(data, MAX_PIXELS, FORMATS)
    except UnreadableImageError as error:
        raise RefusedError(STATUS[error.reason], str(error)) from error


class Hardened:
    """ASGI middleware that adds security headers to every response (CSP, nosniff, no-referrer, same-origin, no-store)."""

    def __init__(self, app: ASGIApp, policy: str) -> None:
        self.app = app
        self.headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request and add the headers to its response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _view_of_file(data: bytes, attend: Attend) -> dict[str, Any]:
    return explorer_view(attend(read_picture(data)))


@contextmanager
def _time_limit() -> Iterator[None]:
    try:
        with anyio.fail_after(SECONDS_TO_SEND):
            yield
    except TimeoutError:
        raise RefusedError(408, f"the upload took longer than {SECONDS_TO_SEND} seconds; send the file again") from None


async def _body(request: Request) -> bytes:
    too_large = RefusedError(413, f"the file is larger than {MAX_BYTES // MEBIBYTE} MiB; make the image smaller")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BYTES:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise too_large
    return bytes(body)


def _refuse_other_sites(request: Request) -> None:
    """Refuse requests from pages of other sites.

    Browsers send Sec-Fetch-Site to trustworthy addresses only (https, loopback), and Origin to all.
    """
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    is_ours = origin is None or _host_of(origin) == host
    if not is_ours or request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise RefusedError(403, "the request came from another site; send pictures from this server's own page")


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError as error:
        raise RefusedError(400, "the Origin header is malformed; open the page in a browser") from error


def _allowed_hosts(host: str) -> Sequence[str]:
    try:
        address = ip_address(host)
    except ValueError:
        return [*LOOPBACK, host]
    if address.is_unspecified:
        return ["*"]
    return [*LOOPBACK, f"[{host}]" if address.version == 6 else host]


def _page(title: str, view: dict[str, Any] | None) -> tuple[str, str]:
    """The page, and the content security policy that allows only its own style and script."""
    component, folder = explorer_assets(), files("csametric.web") / "templates"
    style = component.style + (folder / "explore.css").read_text(encoding="utf-8")
    script = component.script + (folder / "explore.js").read_text(encoding="utf-8")
    environment = Environment(loader=PackageLoader("csametric.web"), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("explore.html").render(
        title=title, style=Markup(style), script=Markup(script), view=view, max_bytes=MAX_BYTES
    )
    policy = (
        f"default-src 'none'; img-src data: blob: 'self'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def _user_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=getattr(error, "status", 400))


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


async def _internal_error(request: Request, error: Exception) -> Response:
    message = f"internal error in csametric ({type(error).__name__}); please report it with the server's output"
    return JSONResponse({"error": message}, status_code=500)
