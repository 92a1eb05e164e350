"""Reports in a real browser: no errors, no requests, all pictures load, and hovering shows the map that Python computes."""

from pathlib import Path

import numpy as np
import pytest

from csametric import load
from csametric.reports.attention_report import attend_queries
from csametric.reports.reid_report import report_reid
from csametric.reproduction.comparison import fill
from csametric.reproduction.execution import execute_runs
from csametric.reproduction.output import write_report
from csametric.reproduction.paper import TABLES
from csametric.reproduction.plan import make_plan
from csametric.training import loop
from tests.data import people
from tests.training import tiny_reid

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
VIEW = "document.querySelectorAll('.explorer')[0]"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return people.write_market(tmp_path_factory.mktemp("data") / "Market-1501").parent


@pytest.fixture(scope="module")
def run(tmp_path_factory, root) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    loop.train(tiny_reid.experiment("market1501", root / "Market-1501", "epochs=2", "attention_every=3"), folder)
    report_reid("Run", {"pcb_csa": folder}, folder / "report.html")
    return folder


@pytest.fixture
def opened(context):
    """A function that opens a file as a page; console errors and requests to a server fail the test."""
    problems: list[str] = []

    def open_file(path: Path):
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        allowed = ("file:", "data:", "blob:")
        page.on("request", lambda request: None if request.url.startswith(allowed) else problems.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_file
    assert problems == []


def expect_pictures(page, minimum):
    sizes = page.evaluate("Array.from(document.querySelectorAll('figure > img'), image => image.naturalWidth)")
    assert len(sizes) >= minimum
    assert all(size > 100 for size in sizes)


def test_the_report_of_a_run_is_complete(opened, run):
    page = opened(run / "report.html")
    headings = page.locator("h2").all_inner_texts()
    assert headings[0] == "How well are people re-identified?"
    assert "What pcb_csa looks at" in headings
    assert headings[-1] == "Machine"
    expect_pictures(page, 3)
    assert "attention_every" in page.locator("body").inner_text()


def test_hovering_in_a_report_shows_the_map_computed_in_python(opened, run):
    page = opened(run / "report.html")
    page.locator(".explorer").first.scroll_into_view_if_needed()
    page.wait_for_selector(".explorer-panel")
    image = page.locator(".explorer-image").first
    attended = attend_queries(run)[0]
    height, width = attended.image.shape[:2]
    shown = []
    for y, x in ((6, 4), (40, 12)):
        box = image.bounding_box()
        page.mouse.move(box["x"] + (x + 0.5) / width * box["width"], box["y"] + (y + 0.5) / height * box["height"])
        page.wait_for_function(
            f"Math.abs({VIEW}.explorer.position.y - {y}) <= 1 && Math.abs({VIEW}.explorer.position.x - {x}) <= 1"
        )
        position = page.evaluate(f"{VIEW}.explorer.position")
        for number, layer in enumerate(attended.layers.values()):
            rows, columns = layer.maps.base.shape[-2:]
            y_cell, x_cell = int(position["y"] / height * rows), int(position["x"] / width * columns)
            reconstructed = layer.maps.at(y=y_cell, x=x_cell)[0].numpy()
            for group in range(len(reconstructed)):
                drawn = np.array(page.evaluate(f"Array.from({VIEW}.explorer.map({number}, {group}))"))
                np.testing.assert_allclose(drawn, reconstructed[group].ravel() * rows * columns, rtol=4e-3, atol=4e-3)
        shown.append(np.array(page.evaluate(f"Array.from({VIEW}.explorer.map(0, 0))")))
    assert np.abs(shown[0] - shown[1]).max() > 1e-3


@pytest.mark.parametrize("how", [PHONE | {"color_scheme": "dark"}])
def test_a_report_fits_a_phone_in_dark_mode(opened, run, how):
    page = opened(run / "report.html")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 29)"


def test_the_report_of_the_paper_is_complete(opened, root, tmp_path):
    table = TABLES["table1"].with_rows(["PCB", "PCB + CSA"], False)
    plan = make_plan([table], root, tmp_path, "tiny", seeds=1)
    execute_runs(list(plan.runs.values()), "tiny")
    runs = list(plan.runs.values())
    write_report("The paper's Table1", [fill(table, plan, ["A note."])], runs, [], {"device": "cpu"}, tmp_path / "report.html")
    page = opened(tmp_path / "report.html")
    text = page.locator("body").inner_text()
    assert "(82.3)" in text
    assert "A note." in text
    expect_pictures(page, 1)
    assert load(next(iter(plan.runs.values())).folder)
