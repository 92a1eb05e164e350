"""A browser, a real server with a tiny network, and a page that fails on console errors."""

import shutil
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from csametric.inference.images import ImageEmbedder
from csametric.web.server import make_app
from tests.web.tiny import embedder, picture

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
FAILED = "Failed to load resource: the server responded with a status of "  # Chromium logs this for every refusal
EXPECTED = (f"{FAILED}4", f"{FAILED}503")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Closed before the tests of other packages run, because its event loop occupies this thread until then."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium on this machine: install Debian's package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def model() -> ImageEmbedder:
    return embedder()


@pytest.fixture(scope="package")
def address(model: ImageEmbedder) -> Iterator[str]:
    """The address of a server that shows `picture(0)` first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(make_app(model.attend, "tiny", picture(0)), log_level="error", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture
def how() -> dict[str, object]:
    """Options of the browser context; tests override them by parametrization."""
    return {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture
def context(browser: Browser, how: dict[str, object]) -> Iterator[BrowserContext]:
    context = browser.new_context(**how)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    """The server's page with the explorer mounted; fails on console errors and on requests to other hosts."""
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: None if is_local(request.url, address) else problems.append(request.url))
    page.goto(address)
    page.wait_for_selector(".explorer-panel")
    yield page
    assert [problem for problem in problems if not problem.startswith(EXPECTED)] == []


def is_local(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))
