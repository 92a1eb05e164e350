"""Figures 3 and 4 of the paper: the CSA module, and a network with CSA between its stages and deep supervision.

The functions return a figure; `diagrams` writes it.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from csametric.reproduction.drawing import (
    BASE,
    CONVOLUTION,
    ELEMENTARY,
    GREEN,
    GREY,
    INPUT,
    LINE,
    LOGITS,
    MARGIN,
    OUTPUT,
    PANEL,
    PLAIN,
    QUIET,
    STEEL,
    TIMES,
    VALUES,
    WEIGHTS,
    WHITE,
    Area,
    Matrix,
    Point,
    Tint,
    draw_arrow,
    draw_box,
    draw_branch,
    draw_cards,
    draw_chain,
    draw_frame,
    draw_matrix,
    draw_sign,
    draw_text,
    new_page,
)

FRAME_EDGE = "#b6bdca"


def module() -> Figure:
    """Draw Figure 3, the CSA module, equations (6) and (7).

    I -> M (D x HW), V (C x HW) -> B, W (D x HW) -> E (C x D) -> Y -> O = alpha Y + I.
    """
    subtitle = "The same logits M feed two softmaxes: over positions, along the rows, and over maps, along the columns."
    figure, axes = new_page(7.05, "The CSA module", subtitle)
    rows, y_product, y_skip, scale = {"V": 4.65, "B": 3.5, "W": 2.7}, 4.0, 5.65, 0.76

    # shapes
    _draw_groups(axes, Area(5.29, 3.61, 7.18, 3.02))
    image = draw_matrix(axes, (0.894, 3.875), INPUT, scale)
    values = _draw_convolution(axes, image, "C channels", (5.994, rows["V"]), VALUES, scale)
    logits = _draw_convolution(axes, image, "D maps", (3.414, (rows["B"] + rows["W"]) / 2), LOGITS, scale)
    base = _draw_softmax(axes, logits, "positions", (5.994, rows["B"]), BASE, scale)
    weights = _draw_softmax(axes, logits, "maps", (5.994, rows["W"]), WEIGHTS, scale)
    gathered, combined = draw_sign(axes, (6.76, y_product), TIMES), draw_sign(axes, (7.3, rows["W"]), TIMES)
    elementary = draw_matrix(axes, (7.3, y_product), ELEMENTARY, scale)
    result = draw_matrix(axes, (8.234, rows["W"]), Matrix(r"$\mathbf{Y}$", "C x HW", GREY, column="i"), scale)
    scaled, added = draw_sign(axes, (9.3, 4.3), r"$\alpha$"), draw_sign(axes, (9.3, y_skip), "+")
    output = draw_matrix(axes, (10.306, y_skip), OUTPUT, scale)

    # arrows: V and B to E, E and W to Y, then alpha and the skip connection from I
    draw_arrow(axes, values.right, (gathered.x, rows["V"]), gathered.top)
    draw_arrow(axes, base.right, (gathered.x, rows["B"]), gathered.bottom)
    draw_arrow(axes, gathered.right, elementary.left)
    draw_arrow(axes, (elementary.x, elementary.bottom[1] - 0.2), combined.top)
    draw_chain(axes, weights, combined, result)
    draw_arrow(axes, result.right, (scaled.x, rows["W"]), scaled.bottom)
    draw_arrow(axes, scaled.top, added.bottom)
    draw_arrow(axes, image.top, (image.x, y_skip), added.left)
    draw_arrow(axes, added.right, output.left)
    _draw_module_cards(axes)
    return figure


def _draw_groups(axes: Axes, area: Area) -> None:
    """Draw the frame of what is done per group, as a sheet on top of others."""
    for step in (0.12, 0.06, 0):
        draw_frame(axes, area._replace(x=area.x + step, y=area.y - step), Tint(PANEL, FRAME_EDGE))
    corner = area.x + area.width / 2 - 0.16
    draw_text(axes, (corner, area.y + area.height / 2 - 0.32), "in each of G groups\nof C/G channels", 9, QUIET, align="right")


def _draw_convolution(axes: Axes, image: Area, label: str, at: Point, matrix: Matrix, scale: float) -> Area:
    convolution = draw_box(axes, (2.25, at[1]), (0.82, 0.5), f"{CONVOLUTION}\n{label}", points=9)
    area = draw_matrix(axes, at, matrix, scale)
    draw_branch(axes, image.right, 1.57, convolution.left)
    draw_arrow(axes, convolution.right, area.left)
    return area


def _draw_softmax(axes: Axes, logits: Area, over: str, at: Point, matrix: Matrix, scale: float) -> Area:
    softmax = draw_box(axes, (4.72, at[1]), (0.96, 0.5), f"softmax over\n{over}", points=9)
    area = draw_matrix(axes, at, matrix, scale)
    draw_branch(axes, logits.right, 4.09, softmax.left)
    draw_arrow(axes, softmax.right, area.left)
    return area


def _draw_module_cards(axes: Axes) -> None:
    rows = r"\dfrac{e^{M_{kj}}}{\sum_{j'} e^{M_{kj'}}}"
    columns = r"\dfrac{e^{M_{ki}}}{\sum_{k'} e^{M_{k'i}}}"
    draw_cards(
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
    """Draw Figure 4, the framework, equation (8).

    Stages of a backbone with CSA between them, a main branch, one supervision branch per module, and L_total.
    """
    subtitle = "CSA between the stages of a backbone; while training, each module has a classifier of its own."
    figure, axes = new_page(7.85, "The framework", subtitle)
    draw_frame(axes, Area(4.38, 3.74, 5.3, 2.32), Tint(WHITE, FRAME_EDGE), dashed=True)
    draw_text(axes, (MARGIN, 3.67), "deep\nsupervision,\nin training only", 9.5, QUIET, align="left")
    modules, last = _draw_backbone(axes, 5.8)
    main = _draw_main_branch(axes, last)
    _draw_total(axes, [_draw_supervision(axes, k, attention) for k, attention in enumerate(modules, 1)], main)
    formula = r"$L_{total} = L_{main} + \lambda\, \sum_{i=1}^{N} L_{aux,i}$"
    draw_cards(
        axes,
        ("equation (8)", formula, "on ResNet-50: N = 3 modules and λ = 1"),
        (
            "what stays as it was",
            "the backbone,  the main branch,  its loss $L_{main}$",
            "after training the supervision branches are dropped; the modules stay",
        ),
    )
    return figure


def _draw_backbone(axes: Axes, y: float) -> tuple[list[Area], Area]:
    """Draw the image, stages 1 to 4 and the modules between them; returns the modules and the last stage."""
    chain = [_draw_image(axes, Area(0.65, y, 0.5, 1.5))]
    modules = []
    for k, (x, width, height) in enumerate(((1.62, 0.36, 1.5), (3.42, 0.46, 1.2), (5.3, 0.58, 0.9), (7.2, 0.7, 0.9)), 1):
        chain.append(_draw_block(axes, Area(x, y, width, height), f"stage {k}"))
        if k < 4:
            modules.append(draw_box(axes, (x + 0.92, y), (0.66, 0.5), "CSA", GREEN, 11))
            chain.append(modules[-1])
    draw_chain(axes, *chain)
    return modules, chain[-1]


def _draw_image(axes: Axes, area: Area) -> Area:
    """Draw a person in a frame three times as high as wide."""
    _draw_block(axes, area, "image", PLAIN)
    axes.add_patch(Circle((area.x, area.y + 0.42), 0.1, facecolor=STEEL, edgecolor="none"))
    draw_frame(axes, Area(area.x, area.y + 0.03, 0.28, 0.54), Tint(STEEL, STEEL), 0.08)
    for side in (-0.07, 0.07):
        draw_frame(axes, Area(area.x + side, area.y - 0.38, 0.1, 0.5), Tint(STEEL, STEEL), 0.04)
    return area


def _draw_block(axes: Axes, area: Area, label: str, tint: Tint = GREY) -> Area:
    """Draw a feature map seen from the side, its label above."""
    corner = (area.x - area.width / 2, area.y - area.height / 2)
    axes.add_patch(Rectangle(corner, area.width, area.height, facecolor=tint.face, edgecolor=tint.edge, linewidth=LINE))
    draw_text(axes, (area.x, area.y + area.height / 2 + 0.16), label, 9.5, QUIET)
    return area


def _draw_supervision(axes: Axes, k: int, attention: Area) -> Area:
    """Draw pooling, fully connected layers and cross-entropy below module k; returns the area of its loss."""
    steps = ("global average\npooling", "fully connected\nlayers", f"cross-entropy\n$L_{{aux,{k}}}$")
    areas = [attention]
    for label, y in zip(steps, (4.4, 3.67, 2.94), strict=True):
        areas.append(draw_box(axes, (attention.x, y), (1.2, 0.48), label, points=9))
        draw_arrow(axes, areas[-2].bottom, areas[-1].top)
    return areas[-1]


def _draw_main_branch(axes: Axes, last: Area) -> Area:
    """Draw the method's own head, here parts: the last map cut into stripes, one vector per stripe; returns its loss."""
    frame = Area(9.55, last.y, 2.5, 1.95)
    draw_frame(axes, frame)
    draw_text(axes, (frame.x, frame.y + 0.75), "main branch", 9.5, QUIET)
    draw_text(axes, (frame.x, frame.y - 0.75), "parts, or one descriptor", 9.5, QUIET)
    stripes, vectors = Area(8.85, last.y, 0.5, last.height), Area(10.05, last.y, 0.9, last.height)
    height = last.height / 6
    for k in range(6):
        y = last.y + last.height / 2 - (k + 0.5) * height
        axes.add_patch(
            Rectangle((stripes.x - 0.25, y - height / 2), 0.5, height, facecolor=GREY.face, edgecolor=STEEL, linewidth=LINE)
        )
        axes.add_patch(Rectangle((vectors.x - 0.45, y - 0.04), 0.9, 0.08, facecolor=STEEL, edgecolor="none"))
    draw_chain(axes, last, stripes, vectors)
    loss = draw_box(axes, (frame.x, 2.94), (1.2, 0.48), "its own loss\n$L_{main}$", points=9)
    draw_arrow(axes, frame.bottom, loss.top)
    return loss


def _draw_total(axes: Axes, losses: Sequence[Area], main: Area) -> None:
    """Draw the auxiliary losses summed and weighted, and the main loss added."""
    y = 2.2
    summed, weighted, added = draw_sign(axes, (7.5, y), "Σ"), draw_sign(axes, (8.3, y), "λ"), draw_sign(axes, (main.x, y), "+")
    total = draw_box(axes, (10.45, y), (0.7, 0.44), "$L_{total}$", points=11)
    for loss in losses:
        draw_arrow(axes, loss.bottom, (loss.x, y), summed.left)
    draw_arrow(axes, main.bottom, added.top)
    draw_chain(axes, summed, weighted, added, total)
