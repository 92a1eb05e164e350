"""Figures show the data they are given, and the page is self-contained."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from csametric.visualization import figures
from csametric.visualization.page import Section, Table, render


def test_run_names_are_not_parsed_as_mathematics():
    """Matplotlib raises a ParseException for an unknown command between two dollar signs."""
    name = r"$\frac$ $\nothing{$"
    rows = [{"step": step, "loss": 1.0, "alpha": 0.1, "rank1": 0.5, "fpr95": 0.1} for step in range(1, 4)]
    for figure in (
        figures.descriptor_curves({name: rows}),
        figures.descriptor_curves({name: rows}),
        figures.differences([name], [(0.1, 0.0, 0.2)], "title", "unit"),
        figures.contact_sheet([np.zeros((4, 4), np.uint8)], [name]),
    ):
        assert figures.data_uri(figure).startswith("data:image/png")


def test_curves_have_one_line_per_run():
    rows = [{"step": step, "loss": 1 / step} | ({"fpr95": 0.1} if step % 5 == 0 else {}) for step in range(1, 31)]
    figure = figures.descriptor_curves({"plain": rows, "csa": rows[:3]})
    assert [line.get_label() for line in figure.axes[0].lines] == ["plain", "csa"]
    assert len(figure.axes[1].lines) == 1
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), 10)


def test_most_different_selects_dissimilar_maps():
    maps = np.zeros((4, 2, 2))
    maps[0, 0, 0] = maps[1, 0, 0] = 1
    maps[2, 1, 1] = 0.9
    maps[3] = 0.25
    assert figures.most_different(maps, 2) == [0, 2]
    assert sorted(figures.most_different(maps, 9)) == [0, 1, 2, 3]


def test_the_attention_figure_has_one_row_per_image():
    base = np.random.default_rng(0).random((2, 5, 16, 16))
    positions = np.array([[1, 2], [3, 4], [5, 6]])
    figure = figures.attention_maps(np.zeros((2, 32, 32)), base[:, :2], base[:, 2:], positions, cosines=np.full((2, 3), 0.5))
    assert len(figure.axes) == 2 * (1 + 2 + 3)
    assert [axis.get_title() for axis in figure.axes[-3:]] == ["0.50"] * 3


@pytest.mark.parametrize("count", [0, 1, 500])
def test_matches_are_drawn_in_two_colours_and_sampled(count):
    points = np.random.default_rng(0).uniform(0, 40, (count, 2))
    correct = np.arange(count) % 2 == 0
    figure = figures.matches(np.zeros((40, 50)), np.zeros((40, 50)), points, points, correct)
    drawn = [len(collection.get_segments()) for collection in figure.axes[0].collections]
    assert sum(drawn) == min(count, 300)


class Sources(HTMLParser):
    """Collects the src and href attributes of a page."""

    def __init__(self):
        super().__init__()
        self.sources = []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]


def test_the_page_is_self_contained_and_escaped():
    picture = figures.data_uri(figures.descriptor_curves({"a": [{"step": 1, "loss": 1.0}]}))
    html = render(
        "<Title>",
        "sub & title",
        [
            Section(
                title="T",
                text="text",
                table=Table(header=["a", "b", "c"], rows=[["1", "<2>", "3"]]),
                pictures=[(picture, "caption")],
            )
        ],
    )
    assert "&lt;Title&gt;" in html
    assert "&lt;2&gt;" in html
    parser = Sources()
    parser.feed(html)
    assert parser.sources
    assert all(source.startswith("data:") for source in parser.sources)
    assert not re.search(r"https?://|@import|url\(", html)
