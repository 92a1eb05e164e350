"""The diagrams have their labels, nothing overlaps, and the files in docs/images are what the code draws."""

import os
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from csametric.reproduction.diagrams import DIAGRAMS, svg

IMAGES = Path(__file__).parents[2] / "docs" / "images"
LABELS = {
    "figure1": (
        *("I", "Q", "K", "V", "A", "O", "QᵀK", "VAᵀ", "C x HW", "C' x HW", "HW x HW", "softmax\nover j"),
        *("equation (1)", "equation (2)", "each row of A sums to 1", "A: (HW)² numbers, 9.4 million at HW = 96 · 32"),
    ),
    "figure2": (
        *("(a)   O = VAᵀ = V(BᵀW)", "(b)   O = EW = (VBᵀ)W", "Wᵀ", "B", "A", "Aᵀ", "V", "Bᵀ", "E", "W", "O"),
        *("C x HW", "D x HW", "HW x D", "HW x HW", "C x D", "equation (4)", "equation (5)"),
        *("2,718 million", "50 million, 54 times fewer", "VBᵀ takes D/HW of the multiply-adds of VAᵀ"),
    ),
    "figure3": (
        *("I", "M", "V", "B", "W", "E", "Y", r"\alpha", "+", "O", "C x HW", "D x HW", "C x D", "1x1 conv\nD maps"),
        *("1x1 conv\nC channels", "softmax over\npositions", "softmax over\nmaps", "in each of G groups\nof C/G channels"),
        *("equation (6)", "its rows sum to 1", "equation (7)", "its columns sum to 1"),
    ),
    "figure4": (
        *("image", "stage 1", "stage 2", "stage 3", "stage 4", "CSA", "main branch", "parts, or one descriptor"),
        *("global average\npooling", "fully connected\nlayers", "cross-entropy\nL_{aux,1}", "cross-entropy\nL_{aux,3}"),
        *("Σ", "λ", "+", "L_{total}", "equation (8)", "L_{total} = L_{main} + λ"),
    ),
}


def plain(text: str) -> str:
    """Text without the markup of mathematics: $\\mathbf{V}\\,\\mathbf{A}^\\mathsf{T}$ -> VAᵀ."""
    text = re.sub(r"\\mathbf\{(\w+)\}", r"\1", text)
    for markup, replacement in ((r"^\mathsf{T}", "ᵀ"), (r"\lambda", "λ"), (r"\times", "x"), (r"\,", ""), ("$", "")):
        text = text.replace(markup, replacement)
    return text


def rendered(figure: Figure) -> FigureCanvasAgg:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


def collisions(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that overlap, and of a text and a shape or arrow whose outline crosses it."""
    renderer = rendered(figure).get_renderer()
    (axes,) = figure.axes
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in axes.texts]
    pairs = [(first, second) for (first, a), (second, b) in combinations(boxes, 2) if a.overlaps(b)]
    for patch in axes.patches:
        lines = patch.get_transform().transform_path(patch.get_path()).to_polygons(closed_only=False)
        crossed = [text for text, box in boxes if any(Outline(line).intersects_bbox(box, filled=False) for line in lines)]
        pairs += [(text, type(patch).__name__) for text in crossed]
    return pairs


def within(inner: Bbox, outer: Bbox) -> bool:
    return outer.x0 <= inner.x0 and outer.y0 <= inner.y0 and inner.x1 <= outer.x1 and inner.y1 <= outer.y1


@pytest.mark.parametrize("name", DIAGRAMS)
def test_the_labels_are_present(name):
    texts = [plain(text.get_text()) for text in DIAGRAMS[name]().axes[0].texts]
    for label in LABELS[name]:
        is_present = label in texts if len(label) < 4 else any(label in text for text in texts)
        assert is_present, f"{name} lacks {label!r}: {texts}"


@pytest.mark.parametrize("name", DIAGRAMS)
def test_nothing_overlaps(name):
    assert collisions(DIAGRAMS[name]()) == []


@pytest.mark.parametrize("name", DIAGRAMS)
def test_nothing_lies_outside_the_axes(name):
    figure = DIAGRAMS[name]()
    renderer = rendered(figure).get_renderer()
    (axes,) = figure.axes
    outside = [
        artist
        for artist in (*axes.texts, *axes.patches)
        if not within(artist.get_window_extent(renderer), axes.bbox.padded(-10))
    ]
    assert outside == []


@pytest.mark.parametrize("name", DIAGRAMS)
def test_text_stays_inside_its_frame(name):
    figure = DIAGRAMS[name]()
    renderer = rendered(figure).get_renderer()
    frames = [patch.get_window_extent(renderer) for patch in figure.axes[0].patches]
    for text in figure.axes[0].texts:
        box = text.get_window_extent(renderer)
        assert all(within(box, frame) for frame in frames if frame.contains(box.x0, box.y0)), text


def test_the_overlap_test_finds_each_kind_of_overlap():
    figure = DIAGRAMS["figure1"]()
    (axes,) = figure.axes
    near = next(text for text in axes.texts if text.get_text() == "softmax\nover j")
    moved = Text(*near.get_position(), "on top of it")
    axes.add_artist(moved)
    near.set_x(near.get_position()[0] + 0.3)
    kinds = {other for _, other in collisions(figure)}
    assert {"on top of it", "FancyBboxPatch"} <= kinds
    near.set_x(near.get_position()[0] + 0.3)
    assert "FancyArrowPatch" in {other for _, other in collisions(figure)}


@pytest.mark.parametrize("name", DIAGRAMS)
def test_files_are_reproducible_and_their_text_is_outlines(name):
    drawn = svg(DIAGRAMS[name]())
    assert drawn == svg(DIAGRAMS[name]())
    assert b"<text" not in drawn
    assert b"<dc:date" not in drawn


def test_matplotlib_settings_have_no_influence():
    drawn = svg(DIAGRAMS["figure2"]())
    settings = {"font.family": "serif", "mathtext.fontset": "cm", "figure.dpi": 200, "savefig.bbox": "tight"}
    with matplotlib.rc_context({**settings, "patch.linewidth": 5, "savefig.facecolor": "red", "text.color": "red"}):
        assert svg(DIAGRAMS["figure2"]()) == drawn


def test_the_files_in_the_documentation_are_up_to_date(tmp_path):
    """Drawn in a process with a font cache of its own, because the machine's may list fonts of other installations."""
    code = "import sys; from csametric.reproduction.diagrams import write; write(sys.argv[1])"
    environment = os.environ | {"MPLCONFIGDIR": str(tmp_path / "fonts")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, check=True)
    for name in DIAGRAMS:
        is_same = (tmp_path / f"{name}.svg").read_bytes() == (IMAGES / f"{name}.svg").read_bytes()
        assert is_same, f"{name}.svg is out of date: draw it again as the docstring of csametric.reproduction.diagrams says"
