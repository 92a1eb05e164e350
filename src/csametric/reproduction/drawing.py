"""Drawing primitives for the diagrams of the paper's figures: pages, boxes, matrices to scale, arrows and cards.

All coordinates are inches from the lower left corner of the page. A primitive that draws a shape returns its `Area`, so
that arrows can be attached to the middles of its sides.
"""

import io
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as Outline

INK, QUIET, ACCENT, ORANGE = "#1d2330", "#5c6577", "#1b7f60", "#ff6a13"
STEEL, PANEL, WHITE = "#79839a", "#f6f7f9", "#ffffff"
WIDTH, MARGIN = 11.2, 0.4  # of a page, inches
GAP = 0.05  # between a shape and the arrows that start or end at it, inches
LINE = 1.1  # width of an outline, points
SIDES = {"HW": 1.3, "C": 0.7, "C'": 0.28, "D": 0.46}  # length of a matrix side by its size, inches
MARKS = {"HW": 0.26, "D": 0.075}  # where the marked row or column lies on a side, inches from its beginning
MARK_WIDTH = 0.06  # inches
TIMES, CONVOLUTION = r"$\times$", r"$1\times1$ conv"

Point = tuple[float, float]


class Tint(NamedTuple):
    """The two colours of a shape."""

    face: str
    edge: str


GREY, GREEN, WARM = Tint("#e9ecf1", STEEL), Tint("#d9eee6", ACCENT), Tint("#ffe4d3", ORANGE)
PLAIN, FLAT = Tint(WHITE, STEEL), Tint(PANEL, PANEL)


class Area(NamedTuple):
    """A rectangle given by its centre; its sides are where arrows meet it."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> Point:
        """The middle of the left side, a gap outside of it."""
        return self.x - self.width / 2 - GAP, self.y

    @property
    def right(self) -> Point:
        """The middle of the right side, a gap outside of it."""
        return self.x + self.width / 2 + GAP, self.y

    @property
    def top(self) -> Point:
        """The middle of the upper side, a gap outside of it."""
        return self.x, self.y + self.height / 2 + GAP

    @property
    def bottom(self) -> Point:
        """The middle of the lower side, a gap outside of it."""
        return self.x, self.y - self.height / 2 - GAP


class Matrix(NamedTuple):
    """A matrix to draw: its symbol, shape and colour, and the row or column that is marked in it."""

    symbol: str
    shape: str  # rows x columns, for example "C x HW"
    tint: Tint
    row: str = ""  # index of the marked row
    column: str = ""  # index of the marked column

    def size(self, scale: float = 1) -> Point:
        """Width and height in inches.

        Examples:
            >>> Matrix("E", "C x D", GREEN).size()
            (0.46, 0.7)
        """
        rows, columns = self.shape.split(" x ")
        return SIDES[columns] * scale, SIDES[rows] * scale


# The matrices of the paper: grey for feature maps, orange for HW x HW, green for what has D maps.
INPUT = Matrix(r"$\mathbf{I}$", "C x HW", GREY)
VALUES = Matrix(r"$\mathbf{V}$", "C x HW", GREY)
OUTPUT = Matrix(r"$\mathbf{O}$", "C x HW", GREY, column="i")
LOGITS = Matrix(r"$\mathbf{M}$", "D x HW", GREEN)
BASE = Matrix(r"$\mathbf{B}$", "D x HW", GREEN, row="k")
BASE_T = Matrix(r"$\mathbf{B}^\mathsf{T}$", "HW x D", GREEN, column="k")
WEIGHTS = Matrix(r"$\mathbf{W}$", "D x HW", GREEN, column="i")
WEIGHTS_T = Matrix(r"$\mathbf{W}^\mathsf{T}$", "HW x D", GREEN, row="i")
ELEMENTARY = Matrix(r"$\mathbf{E}$", "C x D", GREEN, column="k")
ATTENTION = Matrix(r"$\mathbf{A}$", "HW x HW", WARM, row="i")
ATTENTION_T = Matrix(r"$\mathbf{A}^\mathsf{T}$", "HW x HW", WARM, column="i")


def new_page(height: float, title: str, subtitle: str) -> tuple[Figure, Axes]:
    """Create a white page of WIDTH x height inches with its heading."""
    figure = Figure(figsize=(WIDTH, height), facecolor=WHITE)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.set_axis_off()
    draw_text(axes, (MARGIN, height - 0.42), title, 17, weight="bold", align="left")
    draw_text(axes, (MARGIN, height - 0.74), subtitle, 10.5, QUIET, align="left")
    return figure, axes


def svg(figure: Figure) -> bytes:
    """The figure as SVG with text as outlines; the same bytes each time and whatever the settings of matplotlib."""
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "csametric", "svg.fonttype": "path", "savefig.bbox": "standard"}):
        figure.savefig(out, format="svg", facecolor=WHITE, metadata={"Date": None, "Creator": None})
    return out.getvalue()


def draw_text(
    axes: Axes, at: Point, text: str, size: float = 10, colour: str = INK, *, weight: str = "normal", align: str = "center"
) -> None:
    """Write text at a point; size in points."""
    axes.text(
        *at,
        text,
        fontsize=size,
        color=colour,
        weight=weight,
        ha=align,
        va="center",
        family="DejaVu Sans",
        math_fontfamily="dejavusans",
        linespacing=1.35,
    )


def draw_frame(axes: Axes, area: Area, tint: Tint = FLAT, radius: float = 0.1, *, dashed: bool = False) -> None:
    """Draw a rectangle with rounded corners."""
    corner = (area.x - area.width / 2 + radius, area.y - area.height / 2 + radius)
    axes.add_patch(
        FancyBboxPatch(
            corner,
            area.width - 2 * radius,
            area.height - 2 * radius,
            boxstyle=f"round,pad={radius}",
            facecolor=tint.face,
            edgecolor=tint.edge,
            linewidth=LINE,
            linestyle=(0, (4, 3)) if dashed else "-",
        )
    )


def draw_box(axes: Axes, at: Point, size: Point, text: str, tint: Tint = PLAIN, points: float = 9.5) -> Area:
    """Draw an operation as a rounded box with text in it."""
    area = Area(*at, *size)
    draw_frame(axes, area, tint)
    draw_text(axes, at, text, points)
    return area


def draw_sign(axes: Axes, at: Point, sign: str) -> Area:
    """Draw an operation as a small circle with its sign in it."""
    axes.add_patch(Circle(at, 0.14, facecolor=PLAIN.face, edgecolor=PLAIN.edge, linewidth=LINE))
    draw_text(axes, at, sign, 11)
    return Area(*at, 0.28, 0.28)


def draw_matrix(axes: Axes, at: Point, matrix: Matrix, scale: float = 1) -> Area:
    """Draw a matrix to scale: its symbol inside, its shape below, the index of its marked row or column beside it."""
    width, height = matrix.size(scale)
    x, y = at
    left, top = x - width / 2, y + height / 2
    rows, columns = matrix.shape.split(" x ")
    edge = matrix.tint.edge
    lift = 0.05 if rows == "D" else 0  # the mark of a flat matrix leaves little room: its labels give way

    # face, then the marked row and column, then the outline over both
    axes.add_patch(Rectangle((left, top - height), width, height, facecolor=matrix.tint.face, edgecolor="none"))
    if matrix.row:
        middle = top - MARKS[rows]
        axes.add_patch(Rectangle((left, middle - MARK_WIDTH / 2), width, MARK_WIDTH, facecolor=edge, edgecolor="none"))
        draw_text(axes, (left - 0.09, middle + 1.7 * lift), f"${matrix.row}$", 9, QUIET)
    if matrix.column:
        middle = left + MARKS[columns]
        axes.add_patch(Rectangle((middle - MARK_WIDTH / 2, top - height), MARK_WIDTH, height, facecolor=edge, edgecolor="none"))
        draw_text(axes, (middle, top + 0.1), f"${matrix.column}$", 9, QUIET)
    axes.add_patch(Rectangle((left, top - height), width, height, facecolor="none", edgecolor=edge, linewidth=LINE))

    # symbol inside, shape below
    aside = 0.05 if matrix.column and columns == "D" else 0
    draw_text(axes, (x + aside, y - (lift if matrix.row else 0)), matrix.symbol, 12)
    draw_text(axes, (x, top - height - 0.14), f"${matrix.shape.replace('x', TIMES[1:-1])}$", 9, QUIET)
    return Area(x, y, width, height)


def draw_arrow(axes: Axes, *points: Point) -> None:
    """Draw a line through the points, with rounded corners and a head at its end."""
    axes.add_patch(
        FancyArrowPatch(
            path=_rounded(points),
            arrowstyle="-|>,head_length=4.5,head_width=2.4",
            linewidth=1.2,
            color=INK,
            capstyle="butt",
            joinstyle="miter",
            mutation_scale=1,
        )
    )


def _rounded(points: Sequence[Point], radius: float = 0.1) -> Outline:
    corners = np.array(points)
    vertices, codes = [corners[0]], [Outline.MOVETO]
    for before, corner, after in zip(corners, corners[1:], corners[2:], strict=False):
        back, onward = ((end - corner) / np.linalg.norm(end - corner) * radius for end in (before, after))
        vertices += [corner + back, corner, corner + onward]
        codes += [Outline.LINETO, Outline.CURVE3, Outline.CURVE3]
    return Outline([*vertices, corners[-1]], [*codes, Outline.LINETO])


def draw_branch(axes: Axes, start: Point, x: float, end: Point) -> None:
    """Draw an arrow from start to end; if they differ in height, it turns at the vertical line at x."""
    if abs(start[1] - end[1]) < GAP:
        draw_arrow(axes, start, end)
    else:
        draw_arrow(axes, start, (x, start[1]), (x, end[1]), end)


def draw_chain(axes: Axes, *areas: Area) -> None:
    """Draw an arrow from each area to the next one, left to right."""
    for area, following in pairwise(areas):
        draw_arrow(axes, area.right, following.left)


def card_slot(index: int, count: int) -> Area:
    """Where card `index` of `count` equal cards at the foot of the page lies."""
    space = 0.2
    width = (WIDTH - 2 * MARGIN - space * (count - 1)) / count
    return Area(MARGIN + width / 2 + index * (width + space), 1.05, width, 1.45)


def draw_card(axes: Axes, slot: Area, heading: str, formula: str, remark: str) -> None:
    """Draw a card of a heading, a formula ("" for none) and a remark."""
    left = slot.x - slot.width / 2 + 0.18
    draw_frame(axes, slot)
    draw_text(axes, (left, slot.y + 0.53), heading, 9.5, ACCENT, weight="bold", align="left")
    if formula:
        draw_text(axes, (left, slot.y + 0.02), formula, 12.5, align="left")
    draw_text(axes, (left, slot.y - 0.53), remark, 9, QUIET, align="left")


def draw_cards(axes: Axes, *cards: tuple[str, str, str], count: int = 0) -> None:
    """Draw cards of (heading, formula, remark) side by side, in the first slots of `count`, by default as many as cards."""
    for index, card in enumerate(cards):
        draw_card(axes, card_slot(index, count or len(cards)), *card)
