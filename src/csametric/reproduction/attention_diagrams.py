"""Figures 1 and 2 of the paper: self-attention, and the two orders in which its compressed form can be computed.

The functions return a figure; `diagrams` writes it.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from csametric.reproduction.drawing import (
    ATTENTION,
    ATTENTION_T,
    BASE,
    BASE_T,
    CONVOLUTION,
    ELEMENTARY,
    GREEN,
    GREY,
    INPUT,
    MARGIN,
    OUTPUT,
    QUIET,
    TIMES,
    VALUES,
    WARM,
    WEIGHTS,
    WEIGHTS_T,
    WIDTH,
    Area,
    Matrix,
    Point,
    card_slot,
    draw_arrow,
    draw_box,
    draw_branch,
    draw_card,
    draw_cards,
    draw_chain,
    draw_frame,
    draw_matrix,
    draw_sign,
    draw_text,
    new_page,
)

CHANNELS, POSITIONS, MAPS = 256, 96 * 32, 32  # C, HW and D of the counted multiply-adds


def self_attention() -> Figure:
    """Draw Figure 1, self-attention, equations (1) and (2).

    Q, K (C' x HW) and V (C x HW), A = softmax(Q^T K) (HW x HW), O = V A^T.
    """
    figure, axes = new_page(6.15, "Self-attention", "Every position asks every other: HW attention maps of HW numbers each.")

    # shapes from left to right: Q, K, V, then the scores, A and O
    maps = _draw_embeddings(axes)
    y = (maps["Q"].y + maps["K"].y) / 2
    scores = draw_sign(axes, (5.3, y), TIMES)
    softmax = draw_box(axes, (6.25, y), (0.94, 0.5), "softmax\nover j")
    attention = draw_matrix(axes, (7.75, y), ATTENTION)
    applied = draw_sign(axes, (8.9, y), TIMES)
    output = draw_matrix(axes, (10.15, y), OUTPUT)

    # labels and arrows
    draw_text(axes, (scores.x + 0.32, y + 0.42), r"$\mathbf{Q}^\mathsf{T}\mathbf{K}$", 10, QUIET)
    draw_text(axes, (applied.x, y + 0.32), r"$\mathbf{V}\mathbf{A}^\mathsf{T}$", 10, QUIET)
    draw_text(axes, (attention.x, y + 0.85), "row i: where position i looks", 9, QUIET)
    draw_arrow(axes, maps["Q"].right, (scores.x, maps["Q"].y), scores.top)
    draw_arrow(axes, maps["K"].right, (scores.x, maps["K"].y), scores.bottom)
    draw_arrow(axes, maps["V"].right, (applied.x, maps["V"].y), applied.bottom)
    draw_chain(axes, scores, softmax, attention, applied, output)

    # cards
    exponential = r"e^{\mathbf{Q}_i^\mathsf{T}\mathbf{K}_j}"
    total = r"\sum_{j'} e^{\mathbf{Q}_i^\mathsf{T}\mathbf{K}_{j'}}"
    draw_cards(
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


def _draw_embeddings(axes: Axes) -> dict[str, Area]:
    """Draw I and its three 1x1 convolutions; returns the areas of Q, K and V."""
    rows = {
        "Q": (4.55, r"$W_\theta$", Matrix(r"$\mathbf{Q}$", "C' x HW", GREY, column="i")),
        "K": (3.55, r"$W_\phi$", Matrix(r"$\mathbf{K}$", "C' x HW", GREY)),
        "V": (2.55, r"$W_g$", VALUES),
    }
    image = draw_matrix(axes, (1.05, 3.55), INPUT)
    areas = {}
    for name, (y, weight, matrix) in rows.items():
        convolution = draw_box(axes, (2.75, y), (0.94, 0.5), f"{CONVOLUTION}\n{weight}")
        areas[name] = draw_matrix(axes, (4.2, y), matrix)
        draw_branch(axes, image.right, 1.95, convolution.left)
        draw_arrow(axes, convolution.right, areas[name].left)
    return areas


def compression() -> Figure:
    """Draw Figure 2, the two orders of compressed self-attention, equations (4) and (5).

    (a) A = W^T B (HW x HW), then O = V A^T; (b) E = V B^T (C x D), then O = E W.
    """
    subtitle = "D base maps B and, for each position, weights W over them: one product, bracketed in two ways."
    figure, axes = new_page(7.95, "Compressed self-attention", subtitle)
    _draw_order(
        axes,
        MARGIN + 2.55,
        r"(a)   $\mathbf{O} = \mathbf{V}\,\mathbf{A}^\mathsf{T} = \mathbf{V}\,(\mathbf{B}^\mathsf{T}\mathbf{W})$",
        "rebuild all maps, then apply them",
        ("A: the map of every position", r"$D\,(HW)^2$", (WEIGHTS_T, BASE, ATTENTION)),
        ("O: the maps applied to the values", r"$C\,(HW)^2$", (VALUES, ATTENTION_T, OUTPUT)),
    )
    _draw_order(
        axes,
        WIDTH - MARGIN - 2.55,
        r"(b)   $\mathbf{O} = \mathbf{E}\,\mathbf{W} = (\mathbf{V}\,\mathbf{B}^\mathsf{T})\,\mathbf{W}$",
        "apply D base maps, then combine",
        ("E: the D elementary outputs", r"$C\,D\,HW$", (VALUES, BASE_T, ELEMENTARY)),
        ("O: for each position, their weighted average", r"$C\,D\,HW$", (ELEMENTARY, WEIGHTS, OUTPUT)),
    )
    draw_cards(
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
        count=3,
    )
    _draw_costs(axes)
    return figure


def _draw_order(
    axes: Axes, x: float, formula: str, summary: str, *steps: tuple[str, str, tuple[Matrix, Matrix, Matrix]]
) -> None:
    """Draw the panel of one order of the products.

    Args:
        x: the panel's centre.
        steps: two of (meaning, number of multiply-adds, the matrices of the drawn equation).
    """
    left, right = x - 2.33, x + 2.33
    draw_frame(axes, Area(x, 4.4, 5.1, 4.9))
    draw_text(axes, (left, 6.55), formula, 13, align="left")
    draw_text(axes, (right, 6.55), summary, 9.5, QUIET, align="right")
    for (meaning, cost, matrices), y in zip(steps, (5.1, 2.9), strict=True):
        draw_text(axes, (left, y + 0.98), meaning, 9.5, align="left")
        draw_text(axes, (right, y + 0.98), f"{cost}  multiply-adds", 9.5, align="right")
        _draw_equation(axes, (x, y), *matrices)


def _draw_equation(axes: Axes, at: Point, first: Matrix, second: Matrix, product: Matrix) -> None:
    """Draw the equation first x second = product, centred at a point."""
    (rows, inner), (inner_again, columns), shape = (matrix.shape.split(" x ") for matrix in (first, second, product))
    assert inner == inner_again
    assert shape == [rows, columns]
    space = 0.37
    matrices = (first, second, product)
    x = at[0] - (sum(matrix.size()[0] for matrix in matrices) + 2 * space) / 2
    for matrix, sign in zip(matrices, (TIMES, "=", ""), strict=True):
        width = matrix.size()[0]
        draw_matrix(axes, (x + width / 2, at[1]), matrix)
        x += width + space
        if sign:
            draw_text(axes, (x - space / 2, at[1]), sign, 13, QUIET)


def _draw_costs(axes: Axes) -> None:
    """Draw the multiply-adds of both orders as bars of one scale, for C = 256, HW = 96 * 32 and D = 32."""
    slot = card_slot(2, 3)
    left = slot.x - slot.width / 2 + 0.18
    amounts = {"(a)": (MAPS + CHANNELS) * POSITIONS**2, "(b)": 2 * CHANNELS * MAPS * POSITIONS}
    draw_card(axes, slot, "multiply-adds", "", f"C = {CHANNELS}, HW = 96 · 32, D = {MAPS}:  D/HW = 1/{POSITIONS // MAPS}")
    for (name, amount), tint, y in zip(amounts.items(), (WARM, GREEN), (1.17, 0.87), strict=True):
        length = 1.4 * amount / amounts["(a)"]
        fewer = round(amounts["(a)"] / amount)
        label = f"{amount / 1e6:,.0f} million" + (f", {fewer} times fewer" if fewer > 1 else "")
        draw_text(axes, (left, y), name, 9.5, align="left")
        axes.add_patch(Rectangle((left + 0.35, y - 0.07), length, 0.14, facecolor=tint.edge, edgecolor="none"))
        draw_text(axes, (left + 0.45 + length, y), label, 9.5, align="left")
