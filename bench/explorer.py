"""Speed of the attention explorer in headless Chromium: milliseconds per hover, seconds until a chosen picture's maps appear.

The server is that of `csametric serve`, with a PCB on ResNet-50 with CSA after three stages (maps of 96 x 32, 48 x 16 and
24 x 8, D = 32, G = 2) and random weights. `script` is the time of the page's own code for a new position. `frame` is all that
the main thread does for it: script, style, layout and paint. A picture is a JPEG of 512 x 512, timed from the choice of the
file to the frame that shows its maps. Targets: 16 ms per hover, 2 s per picture.
"""

import argparse
import io
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from skimage import data
from starlette.types import ASGIApp

from bench.measure import best_device, write_results
from csametric import PCB
from csametric.cli.tables import print_table
from csametric.inference.images import ImageEmbedder
from csametric.recipes import find_recipe
from csametric.runs.experiment import ReidExperiment
from csametric.web.server import make_app

NAMES = ("chromium", "chromium-browser", "google-chrome")
PHOTOGRAPH = data.astronaut()  # type: ignore[no-untyped-call]
HOVER_TARGET, PICTURE_TARGET = 16.0, 2.0  # ms, s
WATCH = """() => {
    globalThis.seen = { script: [], frame: [], picture: [] };
    const afterPaint = (done) => {
        const channel = new MessageChannel();
        channel.port1.onmessage = () => done(performance.now());
        channel.port2.postMessage(0);
    };
    const nextFrame = (store, start) => requestAnimationFrame(() => {
        const begun = start ?? performance.now();
        afterPaint((end) => store.push(end - begun));
    });
    let chosen = 0;
    let moved = false;
    addEventListener('change', () => { chosen = performance.now(); }, true);
    addEventListener('pointermove', () => {
        if (!moved) nextFrame(seen.frame);
        moved = true;
    }, true);
    addEventListener('explorer:select', (event) => {
        if (chosen) nextFrame(seen.picture, chosen);
        else seen.script.push(event.target.explorer.milliseconds);
        chosen = 0;
        moved = false;
    }, true);
}"""


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """Serve an application from a thread, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def random_model() -> ImageEmbedder:
    """Return a PCB + CSA on ResNet-50 at 384 x 128 with random weights, warmed up with one image."""
    torch.manual_seed(0)
    experiment = find_recipe("pcb_csa")
    assert isinstance(experiment, ReidExperiment)
    model = ImageEmbedder(PCB(alpha=0.5), experiment, best_device())
    model.attend(np.zeros((64, 64, 3), np.uint8))
    return model


def hover(page: Page, moves: int) -> dict[str, list[float]]:
    """Move the pointer over the image `moves` times, and return the milliseconds of script and frame for each move."""
    box = page.locator(".explorer-image").bounding_box()
    assert box is not None
    rng = np.random.default_rng(0)
    for y, x in rng.uniform(0.02, 0.98, (moves, 2)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.evaluate("new Promise(requestAnimationFrame)")
    seen: dict[str, list[float]] = page.evaluate("({ script: seen.script, frame: seen.frame })")
    return seen


def choose_pictures(page: Page, times: int) -> list[float]:
    """Choose a file `times` times, and return the seconds from each choice to the frame that shows its maps."""
    file = io.BytesIO()
    Image.fromarray(PHOTOGRAPH).save(file, format="jpeg", quality=90)
    for count in range(1, times + 1):
        page.locator(".choose input").set_input_files({"name": "photo", "mimeType": "image/jpeg", "buffer": file.getvalue()})
        while page.evaluate("seen.picture.length") < count:
            page.wait_for_timeout(20)
    return [milliseconds / 1000 for milliseconds in page.evaluate("seen.picture")]


def table_row(name: str, values: Sequence[float], target: float) -> list[str]:
    middle, high, worst = np.percentile(values, (50, 95, 100))
    return [
        name,
        str(len(values)),
        f"{middle:.2f}",
        f"{high:.2f}",
        f"{worst:.2f}",
        f"{target:g}",
        "yes" if worst < target else "no",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=400)
    parser.add_argument("--pictures", type=int, default=10)
    arguments = parser.parse_args()
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        raise SystemExit("Chromium is not installed; install Debian's package chromium")
    app = make_app(random_model().attend, "bench", PHOTOGRAPH)
    with served(app) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.wait_for_selector(".explorer-panel")
        page.evaluate(WATCH)
        seconds = choose_pictures(page, arguments.pictures)
        milliseconds = hover(page, arguments.moves)
        browser.close()
    rows = [
        table_row("hover, script, ms", milliseconds["script"], HOVER_TARGET),
        table_row("hover, frame, ms", milliseconds["frame"], HOVER_TARGET),
        table_row("picture, s", seconds, PICTURE_TARGET),
    ]
    print_table("attention explorer", ["what", "times", "median", "95 %", "worst", "target", "all below"], rows)
    print(f"results: {write_results('explorer', [{**milliseconds, 'picture': seconds}])}")


if __name__ == "__main__":
    main()
