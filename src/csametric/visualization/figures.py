"""Figures as functions from arrays to matplotlib figures, and a figure as an image inside a page."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

RIGHT, WRONG = "#21d19f", "#ff6a13"
DOTS_PER_INCH = 110


def data_uri(figure: Figure) -> str:
    """The figure as a PNG data URI for an <img>."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def literal(text: str) -> str:
    """Text for a figure, with dollar signs escaped: matplotlib reads what stands between two of them as mathematics."""
    return text.replace("$", r"\$")


def curves(metrics: Mapping[str, Sequence[Mapping[str, float]]], tested_on: str = "held-out photographs, hard views") -> Figure:
    """Loss (mean of ten steps) and FPR95 over steps, one line a run.

    Args:
        metrics: the rows of metrics.jsonl by the run's label.
        tested_on: what FPR95 is of, the title of its plot.
    """
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    loss, rate = figure.subplots(1, 2)
    for label, rows in metrics.items():
        _draw_loss(loss, label, rows)
        points = [(row["step"], 100 * row["fpr95"]) for row in rows if "fpr95" in row]
        if points:
            rate.plot(*zip(*points, strict=True), marker="o", label=literal(label))
    _decorate(loss, "training loss", "step", "loss")
    _decorate(rate, tested_on, "step", "FPR95, %")
    rate.set_ylim(bottom=0)
    return figure


def attention(
    images: Sequence[NDArray],
    base: Sequence[NDArray],
    reconstructed: Sequence[NDArray],
    positions_R2: NDArray,
    cosines: Sequence[NDArray] | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """A row an image: the image, some of its base maps, the reconstructed maps of R positions (the paper's Figure 5).

    Args:
        images: grey (H, W) or colour (H, W, 3), all of one size.
        base: the base maps to show of each image, (B, h, w); each sums to 1.
        reconstructed: the maps of the positions, (R, h, w), equation (4).
        positions_R2: y, x of each position on the grid of the maps.
        cosines: the largest cosine of each reconstructed map to a base map, (R,), written over it.
        names: of the base maps that are shown, the titles of their columns.
    """
    shown = len(base[0])
    rows, columns = len(images), 1 + shown + len(positions_R2)
    height, width = images[0].shape[:2]
    figure = Figure(figsize=(1.25 * columns, (1.25 * height / width + 0.12) * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    extent = (-0.5, base[0].shape[-1] - 0.5, base[0].shape[-2] - 0.5, -0.5)
    for k, image in enumerate(images):
        for axis in axes[k]:
            axis.imshow(image, cmap="gray", extent=extent, aspect="auto")
            axis.set_box_aspect(height / width)
        for axis, heat in zip(axes[k, 1:], [*base[k], *reconstructed[k]], strict=True):
            axis.imshow(heat, cmap="inferno", alpha=0.65, vmin=0, extent=extent, interpolation="bilinear", aspect="auto")
        for r, (axis, (y, x)) in enumerate(zip(axes[k, 1 + shown :], positions_R2, strict=True)):
            axis.plot(x, y, "+", color="cyan", markersize=8, markeredgewidth=2)
            if cosines is not None:
                axis.set_title(f"{cosines[k][r]:.2f}", fontsize=8, pad=2)
    for axis, title in zip(axes[0], ["image", *(names or ["base map"] * shown)], strict=False):
        axis.set_title(title, fontsize=8)
    if cosines is None:
        for axis in axes[0, 1 + shown :]:
            axis.set_title("seen from +", fontsize=8)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


def most_different(maps_DHW: NDArray, count: int) -> list[int]:
    """Indices of `count` maps, the most peaked first, then each the least like those chosen (by cosine)."""
    flat_DP = maps_DHW.reshape(len(maps_DHW), -1)
    unit_DP = flat_DP / np.linalg.norm(flat_DP, axis=1, keepdims=True)
    chosen = [int(flat_DP.max(1).argmax())]
    while len(chosen) < min(count, len(maps_DHW)):
        likeness_D = (unit_DP @ unit_DP[chosen].T).max(1)
        likeness_D[chosen] = np.inf
        chosen.append(int(likeness_D.argmin()))
    return chosen


def matches(
    left_HW: NDArray,
    right_HW: NDArray,
    from_M2: NDArray,
    to_M2: NDArray,
    is_correct_M: NDArray,
    most: int = 300,
    words: tuple[str, str] = ("right (within 3 px)", "wrong"),
) -> Figure:
    """Two photographs side by side with matches as lines: right in green, wrong in orange, an even sample of `most`.

    Args:
        left_HW, right_HW: grey; the lower one is filled up with white.
        words: what green and orange mean.
    """
    height = max(len(left_HW), len(right_HW))
    left_HW, right_HW = (
        np.pad(photo, ((0, height - len(photo)), (0, 0)), constant_values=255) for photo in (left_HW, right_HW)
    )
    shown = np.linspace(0, len(from_M2) - 1, min(most, len(from_M2))).astype(int)
    width = left_HW.shape[1]
    figure = Figure(figsize=(12, 12 * height / (width + right_HW.shape[1]) + 0.4), layout="constrained")
    axis = figure.subplots()
    axis.imshow(np.hstack([left_HW, right_HW]), cmap="gray")
    lines_M22 = np.stack([from_M2[shown], to_M2[shown] + np.array([width, 0])], 1)
    correct = is_correct_M[shown]
    for chosen, colour, label in ((correct, RIGHT, words[0]), (~correct, WRONG, words[1])):
        axis.add_collection(LineCollection(list(lines_M22[chosen]), colors=colour, linewidths=0.8, label=literal(label)))
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    axis.set_axis_off()
    return figure


def training_curves(metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Loss (a mean over up to ten steps), and where they were logged alphas and statistics of attention and rank-1, over steps.

    Args:
        metrics: the rows of metrics.jsonl by the run's label.
    """
    logged = {name for rows in metrics.values() for row in rows for name in row}
    drawing = {"loss": _draw_losses, "alpha": _draw_alphas, "attention": _draw_entropies, "rank1": _draw_rank}
    drawn = [draw for start, draw in drawing.items() if any(name.startswith(start) for name in logged)]
    figure = Figure(figsize=(4.4 * len(drawn), 3.4), layout="constrained")
    for axis, draw in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        draw(axis, metrics)
    return figure


def _draw_losses(axis: Axes, metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    for label, rows in metrics.items():
        _draw_loss(axis, label, rows)
    _decorate(axis, "training loss, running mean", "step", "loss")


def _draw_entropies(axis: Axes, metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    for label, rows in metrics.items():
        seen = [row for row in rows if any(name.startswith("attention") for name in row)]
        for name in sorted(name for name in (seen[0] if seen else {}) if name.endswith(("_entropy", "_overlap"))):
            axis.plot([row["step"] for row in seen], [row[name] for row in seen], label=literal(f"{label} {name}"))
    _decorate(axis, "base maps: entropy, overlap", "step", "1: uniform, alike")
    axis.set_ylim(0, 1.02)


def _draw_alphas(axis: Axes, metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    for label, rows in metrics.items():
        for name in sorted(name for name in rows[0] if name.startswith("alpha")):
            axis.plot([row["step"] for row in rows], [row[name] for row in rows], label=literal(f"{label} {name}"))
    _decorate(axis, "attention layers", "step", "alpha")


def _draw_rank(axis: Axes, metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    for label, rows in metrics.items():
        points = [(row["step"], 100 * row["rank1"]) for row in rows if "rank1" in row]
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", label=literal(label))
    _decorate(axis, "query and gallery", "step", "rank-1, %")


def ranked_lists(lists: Sequence[tuple[NDArray, Sequence[NDArray], Sequence[bool]]]) -> Figure:
    """A row a query: the query, then its nearest gallery images, framed green where they show the same person, else orange.

    Args:
        lists: query (H, W, 3), gallery images of the same size, and which of them are right.
    """
    columns = 1 + max(len(images) for _, images, _ in lists)
    height, width = lists[0][0].shape[:2]
    figure = Figure(figsize=(1.0 * columns, (1.0 * height / width + 0.12) * len(lists) + 0.3), layout="constrained")
    axes = figure.subplots(len(lists), columns, squeeze=False)
    for row, (query, images, right) in zip(axes, lists, strict=True):
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].imshow(query)
        for axis, image, is_right in zip(row[1:], images, right, strict=False):
            axis.imshow(image)
            axis.spines[:].set(visible=True, color=RIGHT if is_right else WRONG, linewidth=4)
    for axis, title in zip(axes[0], ["query", *(str(rank) for rank in range(1, columns))], strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def in_colours(numbers_HW: NDArray) -> NDArray:
    """Whole numbers as colours, each number its own, uint8 (H, W, 3)."""
    hues = (numbers_HW * 0.618034) % 1.0  # the golden ratio keeps neighbours apart
    return np.round(255 * hsv_to_rgb(np.stack([hues, np.full_like(hues, 0.55), np.full_like(hues, 0.9)], -1))).astype(np.uint8)


def differences(labels: Sequence[str], intervals: Sequence[tuple[float, float, float]], title: str, unit: str) -> Figure:
    """A dot a row with the bounds of its interval; rows from the top, a line at 0.

    Args:
        intervals: difference, low, high; bounds of NaN are not drawn.
    """
    figure = Figure(figsize=(8, 0.34 * len(labels) + 1.1), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(labels))[::-1]
    middle, low, high = np.array(intervals, float).reshape(-1, 3).T
    bounds = np.nan_to_num(np.stack([middle - low, high - middle]))
    axis.errorbar(middle, places, xerr=bounds, fmt="o", color="#1b7f60", ecolor="#7fbfa9", elinewidth=3, capsize=0)
    axis.axvline(0, color="#5c6577", linewidth=1)
    axis.set_yticks(places, [literal(label) for label in labels])
    axis.set(title=title, xlabel=unit, ylim=(-0.7, len(labels) - 0.3))
    axis.grid(axis="x", alpha=0.3)
    return figure


def contact_sheet(images: Sequence[NDArray], captions: Sequence[str], columns: int = 12) -> Figure:
    """Small images in rows, each with a caption."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.1 * columns, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.set_title(literal(caption), fontsize=7)
    return figure


def _draw_loss(axis: Axes, label: str, rows: Sequence[Mapping[str, float]]) -> None:
    steps, losses = np.array([(row["step"], row["loss"]) for row in rows]).T
    window = min(10, max(1, len(losses) // 10))
    axis.plot(steps[window - 1 :], np.convolve(losses, np.ones(window) / window, "valid"), label=literal(label))


def _decorate(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set(title=title, xlabel=x, ylabel=y)
    axis.grid(alpha=0.3)
    if axis.lines:
        axis.legend()
