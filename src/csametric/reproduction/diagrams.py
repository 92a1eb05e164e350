"""The paper's Figures 1 to 4 (Chen et al., AAAI 2020) as drawings of our own, made by code.

Coordinates are inches from the lower left corner of the page. Grey is a feature map, orange is HW x HW, green is of D maps.
A matrix is drawn to `SIDES`; the strong line in it is what position i, or base map k, is about.

    python -c "from csametric.reproduction import diagrams; diagrams.write('docs/images')"
"""

import io
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as Outline

INK, QUIET, ACCENT, ORANGE = "#1d2330", "#5c6577", "#1b7f60", "#ff6a13"
STEEL, PANEL, WHITE = "#79839a", "#f6f7f9", "#ffffff"
WIDTH, MARGIN, GAP = 11.2, 0.4, 0.05
SIDES = {"HW": 1.3, "C": 0.7, "C'": 0.28, "D": 0.46}
MARKS = {"HW": 0.26, "D": 0.075}
TIMES, CONVOLUTION = r"$\times$", r"$1\times1$ conv"
CHANNELS, POSITIONS, MAPS = 256, 96 * 32, 32

Point = tuple[float, float]


class _Tint(NamedTuple):
    face: str
    edge: str


GREY, GREEN, WARM = _Tint("#e9ecf1", STEEL), _Tint("#d9eee6", ACCENT), _Tint("#ffe4d3", ORANGE)
PLAIN, FLAT = _Tint(WHITE, STEEL), _Tint(PANEL, PANEL)


class _Area(NamedTuple):
    """A rectangle by its centre; arrows meet it at the middles of its sides."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> Point:
        return self.x - self.width / 2 - GAP, self.y

    @property
    def right(self) -> Point:
        return self.x + self.width / 2 + GAP, self.y

    @property
    def top(self) -> Point:
        return self.x, self.y + self.height / 2 + GAP

    @property
    def bottom(self) -> Point:
        return self.x, self.y - self.height / 2 - GAP


class _Matrix(NamedTuple):
    """What a matrix shows: its shape as "C x HW", and the index of the row or the column that is marked."""

    symbol: str
    shape: str
    tint: _Tint
    row: str = ""
    column: str = ""

    def size(self, scale: float = 1) -> Point:
        """Width and height in inches."""
        high, wide = self.shape.split(" x ")
        return SIDES[wide] * scale, SIDES[high] * scale


INPUT = _Matrix(r"$\mathbf{I}$", "C x HW", GREY)
VALUES = _Matrix(r"$\mathbf{V}$", "C x HW", GREY)
OUTPUT = _Matrix(r"$\mathbf{O}$", "C x HW", GREY, column="i")
LOGITS = _Matrix(r"$\mathbf{M}$", "D x HW", GREEN)
BASE = _Matrix(r"$\mathbf{B}$", "D x HW", GREEN, row="k")
BASE_T = _Matrix(r"$\mathbf{B}^\mathsf{T}$", "HW x D", GREEN, column="k")
WEIGHTS = _Matrix(r"$\mathbf{W}$", "D x HW", GREEN, column="i")
WEIGHTS_T = _Matrix(r"$\mathbf{W}^\mathsf{T}$", "HW x D", GREEN, row="i")
ELEMENTARY = _Matrix(r"$\mathbf{E}$", "C x D", GREEN, column="k")
ATTENTION = _Matrix(r"$\mathbf{A}$", "HW x HW", WARM, row="i")
ATTENTION_T = _Matrix(r"$\mathbf{A}^\mathsf{T}$", "HW x HW", WARM, column="i")


def self_attention() -> Figure:
    """Figure 1: Q, K (C' x HW) and V (C x HW), A = softmax(Q^T K) (HW x HW), O = V A^T; equations (1) and (2)."""
    figure, axes = _page(6.15, "Self-attention", "Every position asks every other: HW attention maps of HW numbers each.")
    maps = _embeddings(axes)
    y = (maps["Q"].y + maps["K"].y) / 2
    scores = _sign(axes, (5.3, y), TIMES)
    softmax = _box(axes, (6.25, y), (0.94, 0.5), "softmax\nover j")
    attention = _matrix(axes, (7.75, y), ATTENTION)
    applied = _sign(axes, (8.9, y), TIMES)
    output = _matrix(axes, (10.15, y), OUTPUT)
    _write(axes, (scores.x + 0.32, y + 0.42), r"$\mathbf{Q}^\mathsf{T}\mathbf{K}$", 10, QUIET)
    _write(axes, (applied.x, y + 0.32), r"$\mathbf{V}\mathbf{A}^\mathsf{T}$", 10, QUIET)
    _write(axes, (attention.x, y + 0.85), "row i: where position i looks", 9, QUIET)
    _arrow(axes, maps["Q"].right, (scores.x, maps["Q"].y), scores.top)
    _arrow(axes, maps["K"].right, (scores.x, maps["K"].y), scores.bottom)
    _arrow(axes, maps["V"].right, (applied.x, maps["V"].y), applied.bottom)
    _chain(axes, scores, softmax, attention, applied, output)
    exponential = r"e^{\mathbf{Q}_i^\mathsf{T}\mathbf{K}_j}"
    total = r"\sum_{j'} e^{\mathbf{Q}_i^\mathsf{T}\mathbf{K}_{j'}}"
    _cards(
        axes,
        (
            "equation (1)",
            r"$\mathbf{O}_i = \sum_{j=1}^{HW}\, A_{ij}\, \mathbf{V}_j$",
            "column i of O: values weighted by row i of A",
        ),
        ("equation (2)", rf"$A_{{ij}} = \dfrac{{{exponential}}}{{{total}}}$", "each row of A sums to 1"),
        (
            "multiply-adds of the products",
            r"$C^{\prime}(HW)^2 + C\,(HW)^2$",
            f"A: (HW)² numbers, {POSITIONS**2 / 1e6:.1f} million at HW = 96 · 32",
        ),
    )
    return figure


def _embeddings(axes: Axes) -> dict[str, _Area]:
    """I and its three 1x1 convolutions; where Q, K and V lie."""
    rows = {
        "Q": (4.55, r"$W_\theta$", _Matrix(r"$\mathbf{Q}$", "C' x HW", GREY, column="i")),
        "K": (3.55, r"$W_\phi$", _Matrix(r"$\mathbf{K}$", "C' x HW", GREY)),
        "V": (2.55, r"$W_g$", VALUES),
    }
    image = _matrix(axes, (1.05, 3.55), INPUT)
    areas = {}
    for name, (y, weight, matrix) in rows.items():
        convolution = _box(axes, (2.75, y), (0.94, 0.5), f"{CONVOLUTION}\n{weight}")
        areas[name] = _matrix(axes, (4.2, y), matrix)
        _branch(axes, image.right, 1.95, convolution.left)
        _arrow(axes, convolution.right, areas[name].left)
    return areas


def compression() -> Figure:
    """Figure 2: (a) A = W^T B (HW x HW), then O = V A^T; (b) E = V B^T (C x D), then O = E W; equations (4) and (5)."""
    subtitle = "D base maps B and, for each position, weights W over them: one product, bracketed in two ways."
    figure, axes = _page(7.95, "Compressed self-attention", subtitle)
    _order(
        axes,
        MARGIN + 2.55,
        r"(a)   $\mathbf{O} = \mathbf{V}\,\mathbf{A}^\mathsf{T} = \mathbf{V}\,(\mathbf{B}^\mathsf{T}\mathbf{W})$",
        "rebuild all maps, then apply them",
        ("A: the map of every position", r"$D\,(HW)^2$", (WEIGHTS_T, BASE, ATTENTION)),
        ("O: the maps applied to the values", r"$C\,(HW)^2$", (VALUES, ATTENTION_T, OUTPUT)),
    )
    _order(
        axes,
        WIDTH - MARGIN - 2.55,
        r"(b)   $\mathbf{O} = \mathbf{E}\,\mathbf{W} = (\mathbf{V}\,\mathbf{B}^\mathsf{T})\,\mathbf{W}$",
        "apply D base maps, then combine",
        ("E: the D elementary outputs", r"$C\,D\,HW$", (VALUES, BASE_T, ELEMENTARY)),
        ("O: for each position, their weighted average", r"$C\,D\,HW$", (ELEMENTARY, WEIGHTS, OUTPUT)),
    )
    _cards(
        axes,
        (
            "(a) equation (4)",
            r"$\mathbf{A}_i = \sum_{k=1}^{D}\, W_{ki}\, \mathbf{B}_k$",
            "B holds D/HW as many numbers as A",
        ),
        (
            "(b) equation (5)",
            r"$\mathbf{O}_i = \sum_{k=1}^{D}\, W_{ki}\, \mathbf{E}_k$",
            r"$\mathbf{VB}^\mathsf{T}$ takes D/HW of the multiply-adds of $\mathbf{VA}^\mathsf{T}$",
        ),
        of=3,
    )
    _costs(axes)
    return figure


def _order(axes: Axes, x: float, formula: str, words: str, *steps: tuple[str, str, tuple[_Matrix, _Matrix, _Matrix]]) -> None:
    """A panel of one order: its formula, and each step as words, multiply-adds and a drawn equation."""
    left, right = x - 2.33, x + 2.33
    _frame(axes, _Area(x, 4.4, 5.1, 4.9))
    _write(axes, (left, 6.55), formula, 13, align="left")
    _write(axes, (right, 6.55), words, 9.5, QUIET, align="right")
    for (meaning, cost, matrices), y in zip(steps, (5.1, 2.9), strict=True):
        _write(axes, (left, y + 0.98), meaning, 9.5, align="left")
        _write(axes, (right, y + 0.98), f"{cost}  multiply-adds", 9.5, align="right")
        _equation(axes, (x, y), *matrices)


def _equation(axes: Axes, at: Point, first: _Matrix, second: _Matrix, product: _Matrix) -> None:
    """A drawn equation, first times second is product, around a point."""
    (rows, inner), (same, columns), shape = (matrix.shape.split(" x ") for matrix in (first, second, product))
    assert inner == same
    assert shape == [rows, columns]
    space = 0.37
    matrices = (first, second, product)
    x = at[0] - (sum(matrix.size()[0] for matrix in matrices) + 2 * space) / 2
    for matrix, sign in zip(matrices, (TIMES, "=", ""), strict=True):
        width = matrix.size()[0]
        _matrix(axes, (x + width / 2, at[1]), matrix)
        x += width + space
        if sign:
            _write(axes, (x - space / 2, at[1]), sign, 13, QUIET)


def _costs(axes: Axes) -> None:
    """The multiply-adds of both orders as bars of one scale, for C = 256, HW = 96 * 32 and D = 32."""
    slot = _slot(2, 3)
    left = slot.x - slot.width / 2 + 0.18
    amounts = {"(a)": (MAPS + CHANNELS) * POSITIONS**2, "(b)": 2 * CHANNELS * MAPS * POSITIONS}
    _card(axes, slot, "multiply-adds", "", f"C = {CHANNELS}, HW = 96 · 32, D = {MAPS}:  D/HW = 1/{POSITIONS // MAPS}")
    for (name, amount), tint, y in zip(amounts.items(), (WARM, GREEN), (1.17, 0.87), strict=True):
        length = 1.4 * amount / amounts["(a)"]
        fewer = round(amounts["(a)"] / amount)
        words = f"{amount / 1e6:,.0f} million" + (f", {fewer} times fewer" if fewer > 1 else "")
        _write(axes, (left, y), name, 9.5, align="left")
        axes.add_patch(Rectangle((left + 0.35, y - 0.07), length, 0.14, facecolor=tint.edge, edgecolor="none"))
        _write(axes, (left + 0.45 + length, y), words, 9.5, align="left")


def module() -> Figure:
    """Figure 3: I -> M (D x HW), V (C x HW) -> B, W (D x HW) -> E (C x D) -> Y -> O = alpha Y + I; equations (6) and (7)."""
    subtitle = "The same logits M feed two softmaxes: over positions, along the rows, and over maps, along the columns."
    figure, axes = _page(7.05, "The CSA module", subtitle)
    rows, y_product, y_skip, scale = {"V": 4.65, "B": 3.5, "W": 2.7}, 4.0, 5.65, 0.76
    _groups(axes, _Area(5.29, 3.61, 7.18, 3.02))
    image = _matrix(axes, (0.894, 3.875), INPUT, scale)
    values = _convolved(axes, image, "C channels", (5.994, rows["V"]), VALUES, scale)
    logits = _convolved(axes, image, "D maps", (3.414, (rows["B"] + rows["W"]) / 2), LOGITS, scale)
    base = _softmax(axes, logits, "positions", (5.994, rows["B"]), BASE, scale)
    weights = _softmax(axes, logits, "maps", (5.994, rows["W"]), WEIGHTS, scale)
    gathered, combined = _sign(axes, (6.76, y_product), TIMES), _sign(axes, (7.3, rows["W"]), TIMES)
    elementary = _matrix(axes, (7.3, y_product), ELEMENTARY, scale)
    result = _matrix(axes, (8.234, rows["W"]), _Matrix(r"$\mathbf{Y}$", "C x HW", GREY, column="i"), scale)
    scaled, added = _sign(axes, (9.3, 4.3), r"$\alpha$"), _sign(axes, (9.3, y_skip), "+")
    output = _matrix(axes, (10.306, y_skip), OUTPUT, scale)
    _arrow(axes, values.right, (gathered.x, rows["V"]), gathered.top)
    _arrow(axes, base.right, (gathered.x, rows["B"]), gathered.bottom)
    _arrow(axes, gathered.right, elementary.left)
    _arrow(axes, (elementary.x, elementary.bottom[1] - 0.2), combined.top)
    _chain(axes, weights, combined, result)
    _arrow(axes, result.right, (scaled.x, rows["W"]), scaled.bottom)
    _arrow(axes, scaled.top, added.bottom)
    _arrow(axes, image.top, (image.x, y_skip), added.left)
    _arrow(axes, added.right, output.left)
    _module_cards(axes)
    return figure


def _groups(axes: Axes, area: _Area) -> None:
    """What is done for each group apart: a sheet on top of others."""
    for step in (0.12, 0.06, 0):
        _frame(axes, area._replace(x=area.x + step, y=area.y - step), _Tint(PANEL, "#b6bdca"))
    corner = area.x + area.width / 2 - 0.16
    _write(axes, (corner, area.y + area.height / 2 - 0.32), "in each of G groups\nof C/G channels", 9, QUIET, align="right")


def _convolved(axes: Axes, image: _Area, words: str, at: Point, matrix: _Matrix, scale: float) -> _Area:
    convolution = _box(axes, (2.25, at[1]), (0.82, 0.5), f"{CONVOLUTION}\n{words}", points=9)
    area = _matrix(axes, at, matrix, scale)
    _branch(axes, image.right, 1.57, convolution.left)
    _arrow(axes, convolution.right, area.left)
    return area


def _softmax(axes: Axes, logits: _Area, over: str, at: Point, matrix: _Matrix, scale: float) -> _Area:
    softmax = _box(axes, (4.72, at[1]), (0.96, 0.5), f"softmax over\n{over}", points=9)
    area = _matrix(axes, at, matrix, scale)
    _branch(axes, logits.right, 4.09, softmax.left)
    _arrow(axes, softmax.right, area.left)
    return area


def _module_cards(axes: Axes) -> None:
    rows = r"\dfrac{e^{M_{kj}}}{\sum_{j'} e^{M_{kj'}}}"
    columns = r"\dfrac{e^{M_{ki}}}{\sum_{k'} e^{M_{k'i}}}"
    _cards(
        axes,
        (
            "equation (6)",
            rf"$\mathbf{{E}}_k = \sum_{{j=1}}^{{HW}} \mathbf{{V}}_j\, {rows}$",
            "the fraction is B: its rows sum to 1",
        ),
        (
            "equation (7)",
            rf"$\mathbf{{O}}_i = \alpha \sum_{{k=1}}^{{D}} \mathbf{{E}}_k\, {columns} + \mathbf{{I}}_i$",
            "the fraction is W: its columns sum to 1",
        ),
        (
            "shapes of V, E and Y",
            r"$C \times HW \;\to\; C \times D \;\to\; C \times HW$",
            r"$\alpha$ is one number, learnable or fixed",
        ),
    )


def framework() -> Figure:
    """Figure 4: stages with CSA between them, a main branch, a supervision branch a module, L_total of equation (8)."""
    subtitle = "CSA between the stages of a backbone; while training, each module has a classifier of its own."
    figure, axes = _page(7.85, "The framework", subtitle)
    _frame(axes, _Area(4.38, 3.74, 5.3, 2.32), _Tint(WHITE, "#b6bdca"), dashed=True)
    _write(axes, (MARGIN, 3.67), "deep\nsupervision,\nin training only", 9.5, QUIET, align="left")
    modules, last = _backbone(axes, 5.8)
    main = _main_branch(axes, last)
    _total(axes, [_supervision(axes, k, attention) for k, attention in enumerate(modules, 1)], main)
    formula = r"$L_{total} = L_{main} + \lambda\, \sum_{i=1}^{N} L_{aux,i}$"
    _cards(
        axes,
        ("equation (8)", formula, "on ResNet-50: N = 3 modules and λ = 1"),
        (
            "what stays as it was",
            "the backbone,  the main branch,  its loss $L_{main}$",
            "after training the supervision branches are dropped; the modules stay",
        ),
    )
    return figure


def _backbone(axes: Axes, y: float) -> tuple[list[_Area], _Area]:
    """The image, stages 1 to 4 and the modules between them; the modules and the last stage."""
    chain = [_image(axes, _Area(0.65, y, 0.5, 1.5))]
    modules = []
    for k, (x, width, height) in enumerate(((1.62, 0.36, 1.5), (3.42, 0.46, 1.2), (5.3, 0.58, 0.9), (7.2, 0.7, 0.9)), 1):
        chain.append(_block(axes, _Area(x, y, width, height), f"stage {k}"))
        if k < 4:
            modules.append(_box(axes, (x + 0.92, y), (0.66, 0.5), "CSA", GREEN, 11))
            chain.append(modules[-1])
    _chain(axes, *chain)
    return modules, chain[-1]


def _image(axes: Axes, area: _Area) -> _Area:
    """A person in a frame, three times as high as wide."""
    _block(axes, area, "image", PLAIN)
    axes.add_patch(Circle((area.x, area.y + 0.42), 0.1, facecolor=STEEL, edgecolor="none"))
    _frame(axes, _Area(area.x, area.y + 0.03, 0.28, 0.54), _Tint(STEEL, STEEL), 0.08)
    for side in (-0.07, 0.07):
        _frame(axes, _Area(area.x + side, area.y - 0.38, 0.1, 0.5), _Tint(STEEL, STEEL), 0.04)
    return area


def _block(axes: Axes, area: _Area, words: str, tint: _Tint = GREY) -> _Area:
    """A feature map seen from the side, its name above."""
    corner = (area.x - area.width / 2, area.y - area.height / 2)
    axes.add_patch(Rectangle(corner, area.width, area.height, facecolor=tint.face, edgecolor=tint.edge, linewidth=1.1))
    _write(axes, (area.x, area.y + area.height / 2 + 0.16), words, 9.5, QUIET)
    return area


def _supervision(axes: Axes, k: int, attention: _Area) -> _Area:
    """Pooling, fully connected layers and cross-entropy below a module; where its loss is."""
    steps = ("global average\npooling", "fully connected\nlayers", f"cross-entropy\n$L_{{aux,{k}}}$")
    areas = [attention]
    for words, y in zip(steps, (4.4, 3.67, 2.94), strict=True):
        areas.append(_box(axes, (attention.x, y), (1.2, 0.48), words, points=9))
        _arrow(axes, areas[-2].bottom, areas[-1].top)
    return areas[-1]


def _main_branch(axes: Axes, last: _Area) -> _Area:
    """The method's own head, here with parts: the last map cut in stripes, a vector each; where its loss is."""
    frame = _Area(9.55, last.y, 2.5, 1.95)
    _frame(axes, frame)
    _write(axes, (frame.x, frame.y + 0.75), "main branch", 9.5, QUIET)
    _write(axes, (frame.x, frame.y - 0.75), "parts, or one descriptor", 9.5, QUIET)
    stripes, vectors = _Area(8.85, last.y, 0.5, last.height), _Area(10.05, last.y, 0.9, last.height)
    height = last.height / 6
    for k in range(6):
        y = last.y + last.height / 2 - (k + 0.5) * height
        axes.add_patch(
            Rectangle((stripes.x - 0.25, y - height / 2), 0.5, height, facecolor=GREY.face, edgecolor=STEEL, linewidth=1.1)
        )
        axes.add_patch(Rectangle((vectors.x - 0.45, y - 0.04), 0.9, 0.08, facecolor=STEEL, edgecolor="none"))
    _chain(axes, last, stripes, vectors)
    loss = _box(axes, (frame.x, 2.94), (1.2, 0.48), "its own loss\n$L_{main}$", points=9)
    _arrow(axes, frame.bottom, loss.top)
    return loss


def _total(axes: Axes, losses: Sequence[_Area], main: _Area) -> None:
    """The auxiliary losses summed and weighted, and the main loss added."""
    y = 2.2
    summed, weighted, added = _sign(axes, (7.5, y), "Σ"), _sign(axes, (8.3, y), "λ"), _sign(axes, (main.x, y), "+")
    total = _box(axes, (10.45, y), (0.7, 0.44), "$L_{total}$", points=11)
    for loss in losses:
        _arrow(axes, loss.bottom, (loss.x, y), summed.left)
    _arrow(axes, main.bottom, added.top)
    _chain(axes, summed, weighted, added, total)


DIAGRAMS: dict[str, Callable[[], Figure]] = {
    "figure1": self_attention,
    "figure2": compression,
    "figure3": module,
    "figure4": framework,
}


def svg(figure: Figure) -> bytes:
    """The figure as SVG, text as outlines, the same bytes each time and whatever the settings of matplotlib."""
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "csametric", "svg.fonttype": "path", "savefig.bbox": "standard"}):
        figure.savefig(out, format="svg", facecolor=WHITE, metadata={"Date": None, "Creator": None})
    return out.getvalue()


def write(folder: str | Path) -> None:
    """Each of `DIAGRAMS` as folder/<name>.svg; the folder must be there."""
    for name, draw in DIAGRAMS.items():
        Path(folder, f"{name}.svg").write_bytes(svg(draw()))


def _page(height: float, title: str, subtitle: str) -> tuple[Figure, Axes]:
    """A white page of WIDTH x height inches with its heading."""
    figure = Figure(figsize=(WIDTH, height), facecolor=WHITE)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.set_axis_off()
    _write(axes, (MARGIN, height - 0.42), title, 17, weight="bold", align="left")
    _write(axes, (MARGIN, height - 0.74), subtitle, 10.5, QUIET, align="left")
    return figure, axes


def _write(
    axes: Axes, at: Point, words: str, size: float = 10, colour: str = INK, *, weight: str = "normal", align: str = "center"
) -> None:
    axes.text(
        *at,
        words,
        fontsize=size,
        color=colour,
        weight=weight,
        ha=align,
        va="center",
        family="DejaVu Sans",
        math_fontfamily="dejavusans",
        linespacing=1.35,
    )


def _frame(axes: Axes, area: _Area, tint: _Tint = FLAT, radius: float = 0.1, *, dashed: bool = False) -> None:
    corner = (area.x - area.width / 2 + radius, area.y - area.height / 2 + radius)
    axes.add_patch(
        FancyBboxPatch(
            corner,
            area.width - 2 * radius,
            area.height - 2 * radius,
            boxstyle=f"round,pad={radius}",
            facecolor=tint.face,
            edgecolor=tint.edge,
            linewidth=1.1,
            linestyle=(0, (4, 3)) if dashed else "-",
        )
    )


def _box(axes: Axes, at: Point, size: Point, words: str, tint: _Tint = PLAIN, points: float = 9.5) -> _Area:
    """An operation: a rounded box with words in it."""
    area = _Area(*at, *size)
    _frame(axes, area, tint)
    _write(axes, at, words, points)
    return area


def _sign(axes: Axes, at: Point, words: str) -> _Area:
    """An operation of few words: a small circle with its sign."""
    axes.add_patch(Circle(at, 0.14, facecolor=PLAIN.face, edgecolor=PLAIN.edge, linewidth=1.1))
    _write(axes, at, words, 11)
    return _Area(*at, 0.28, 0.28)


def _matrix(axes: Axes, at: Point, matrix: _Matrix, scale: float = 1) -> _Area:
    """A matrix to scale, its symbol inside, its shape below, the index of its marked line beside it."""
    width, height = matrix.size(scale)
    x, y = at
    left, top = x - width / 2, y + height / 2
    high, wide = matrix.shape.split(" x ")
    band, edge = 0.06, matrix.tint.edge
    lift = 0.05 if high == "D" else 0
    axes.add_patch(Rectangle((left, top - height), width, height, facecolor=matrix.tint.face, edgecolor="none"))
    if matrix.row:
        middle = top - MARKS[high]
        axes.add_patch(Rectangle((left, middle - band / 2), width, band, facecolor=edge, edgecolor="none"))
        _write(axes, (left - 0.09, middle + 1.7 * lift), f"${matrix.row}$", 9, QUIET)
    if matrix.column:
        middle = left + MARKS[wide]
        axes.add_patch(Rectangle((middle - band / 2, top - height), band, height, facecolor=edge, edgecolor="none"))
        _write(axes, (middle, top + 0.1), f"${matrix.column}$", 9, QUIET)
    axes.add_patch(Rectangle((left, top - height), width, height, facecolor="none", edgecolor=edge, linewidth=1.1))
    aside = 0.05 if matrix.column and wide == "D" else 0
    _write(axes, (x + aside, y - (lift if matrix.row else 0)), matrix.symbol, 12)
    _write(axes, (x, top - height - 0.14), f"${matrix.shape.replace('x', TIMES[1:-1])}$", 9, QUIET)
    return _Area(x, y, width, height)


def _arrow(axes: Axes, *points: Point) -> None:
    """A line through the points with rounded corners, and a head at its end."""
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


def _branch(axes: Axes, start: Point, x: float, end: Point) -> None:
    """From start to end by way of the vertical line at x."""
    level = abs(start[1] - end[1]) < GAP
    _arrow(axes, start, *(() if level else ((x, start[1]), (x, end[1]))), end)


def _chain(axes: Axes, *areas: _Area) -> None:
    for one, other in pairwise(areas):
        _arrow(axes, one.right, other.left)


def _slot(k: int, of: int) -> _Area:
    """Where card k of a row of cards at the foot of the page lies."""
    space = 0.2
    width = (WIDTH - 2 * MARGIN - space * (of - 1)) / of
    return _Area(MARGIN + width / 2 + k * (width + space), 1.05, width, 1.45)


def _card(axes: Axes, slot: _Area, heading: str, formula: str, remark: str) -> None:
    left = slot.x - slot.width / 2 + 0.18
    _frame(axes, slot)
    _write(axes, (left, slot.y + 0.53), heading, 9.5, ACCENT, weight="bold", align="left")
    if formula:
        _write(axes, (left, slot.y + 0.02), formula, 12.5, align="left")
    _write(axes, (left, slot.y - 0.53), remark, 9, QUIET, align="left")


def _cards(axes: Axes, *cards: tuple[str, str, str], of: int = 0) -> None:
    """Cards of a heading, a formula and a remark side by side, the first of a row of `of`."""
    for k, card in enumerate(cards):
        _card(axes, _slot(k, of or len(cards)), *card)
