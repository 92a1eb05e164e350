"""The server of the attention explorer: a page, and the attention of the pictures it sends.

Pictures come as the bytes of a request, never as the name of a file, and are answered one at a time in a thread of their own:
the page stays responsive, and memory holds one decoded picture.
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
from csametric.reports.attention_report import view_of
from csametric.visualization.explorer import explorer_assets

if TYPE_CHECKING:
    from csametric.inference.attended import AttendedImage

MEBIBYTE = 2**20
MOST_BYTES = 20 * MEBIBYTE
MOST_PIXELS = 50_000_000
SECONDS_TO_SEND = 60
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
STATUS: dict[Reason, int] = {"format": 415, "mode": 415, "size": 413, "damage": 400}  # of HTTP, for what cannot be decoded
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

Attend = Callable[[NDArray], "AttendedImage"]


class RefusedError(UserError):
    """A request that is not answered. status: of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def make_app(attend: Attend, title: str, first: NDArray | None = None, host: str = "127.0.0.1") -> ASGIApp:
    """The application: GET / is the page, POST /attention takes the bytes of an image file and answers with its view.

    Args:
        attend: from an RGB image of any size, uint8 (H, W, 3), to what the network looks at; called one at a time.
        title: of the page.
        first: the picture the page begins with, uint8 (H, W, 3).
        host: the address listened at. Requests for other hosts than this and the loopback are refused, which keeps pages
            elsewhere from reaching the server by a name of theirs (DNS rebinding); all are answered where host means every
            address of the machine.

    Raises:
        UserError: the network has no compressed self-attention, where there is a first picture.
    """
    view = None if first is None else view_of(attend(first))
    page, policy = _page(title, view)
    alone = anyio.CapacityLimiter(1)

    async def explore(request: Request) -> Response:
        return HTMLResponse(page)

    async def attention(request: Request) -> Response:
        _refuse_other_sites(request)
        with _in_time():
            data = await _body(request)
        look = partial(_look, data, attend)
        return JSONResponse(await anyio.to_thread.run_sync(look, limiter=alone))

    app = Starlette(
        routes=[Route("/", explore), Route("/attention", attention, methods=["POST"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_allowed_hosts(host), www_redirect=False)],
        exception_handlers={UserError: _explain, ClientDisconnect: _answer_nobody, Exception: _internal_error},
    )
    return Hardened(app, policy)


def read_picture(data: bytes) -> NDArray:
    """Decode the bytes of an image file as RGB, uint8 (H, W, 3), turned as its camera says.

    Raises:
        RefusedError: not a whole image with at most 50 million pixels, in 8-bit colours and one of the formats we decode.
    """
    try:
        return decode_colours(data, MOST_PIXELS, FORMATS)
    except UnreadableImageError as error:
        raise RefusedError(STATUS[error.reason], str(error)) from error


class Hardened:
    """ASGI middleware: every answer says what its page may do (`policy`), and that it is neither guessed at nor kept."""

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
        """Pass the request on, and the answer back with the headers."""

        async def send_hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        await self.app(scope, receive, send_hardened)


def _look(data: bytes, attend: Attend) -> dict[str, Any]:
    return view_of(attend(read_picture(data)))


@contextmanager
def _in_time() -> Iterator[None]:
    try:
        with anyio.fail_after(SECONDS_TO_SEND):
            yield
    except TimeoutError:
        raise RefusedError(408, f"the file did not arrive within {SECONDS_TO_SEND} seconds; send it again") from None


async def _body(request: Request) -> bytes:
    refusal = RefusedError(413, f"the file is larger than {MOST_BYTES // MEBIBYTE} MiB; make the image smaller")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MOST_BYTES:
        raise refusal
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise refusal
    return bytes(body)


def _refuse_other_sites(request: Request) -> None:
    """Browsers tell the site by Sec-Fetch-Site on trustworthy addresses (https, loopback), by Origin on all."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    is_ours = origin is None or _host_of(origin) == host
    if not is_ours or request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise RefusedError(403, "another site asked for this; open the page of csametric serve itself")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # malformed, so not our page's
        return None


def _allowed_hosts(host: str) -> Sequence[str]:
    try:
        address = ip_address(host)
    except ValueError:
        return [*LOOPBACK, host]
    if address.is_unspecified:
        return ["*"]
    return [*LOOPBACK, f"[{host}]" if address.version == 6 else host]


def _page(title: str, view: dict[str, Any] | None) -> tuple[str, str]:
    """The page, and the content security policy that lets its own style and script run and nothing else."""
    component, folder = explorer_assets(), files("csametric.web") / "templates"
    style = component.style + (folder / "explore.css").read_text(encoding="utf-8")
    script = component.script + (folder / "explore.js").read_text(encoding="utf-8")
    environment = Environment(loader=PackageLoader("csametric.web"), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("explore.html").render(
        title=title, style=Markup(style), script=Markup(script), view=view, most_bytes=MOST_BYTES
    )
    policy = (
        f"default-src 'none'; img-src data: blob: 'self'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def _explain(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=getattr(error, "status", 400))


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


async def _internal_error(request: Request, error: Exception) -> Response:
    message = f"csametric failed ({type(error).__name__}); the terminal of csametric serve says where, report it"
    return JSONResponse({"error": message}, status_code=500)
