"""Functions from arrays to matplotlib figures, and from a figure to an image for HTML."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from csametric.errors import printable
from csametric.files import write_atomically

RIGHT, WRONG = "#21d19f", "#ff6a13"
DOTS_PER_INCH = 110


def data_uri(figure: Figure) -> str:
    """Encode a figure as a PNG data URI for an <img> element."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def literal(text: str) -> str:
    r"""Escape dollar signs, which matplotlib would read as the start of mathematics, and what no font can draw.

    Examples:
        >>> literal("run $1") == r"run \$1"
        True
    """
    return printable(text).replace("$", r"\$")


def descriptor_curves(
    metrics: Mapping[str, Sequence[Mapping[str, float]]], tested_on: str = "held-out photographs, hard views"
) -> Figure:
    """Plot loss (running mean over up to ten logged values) and FPR95 over steps, one line per run.

    Args:
        metrics: the rows of metrics.jsonl, by the label of the run.
        tested_on: the patches that FPR95 is measured on, the title of its plot.
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


def attention_maps(
    images: Sequence[NDArray],
    base: Sequence[NDArray],
    reconstructed: Sequence[NDArray],
    positions_R2: NDArray,
    cosines: Sequence[NDArray] | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw one row per image: the image, some base maps, and the reconstructed maps of R positions (the paper's Figure 5).

    Args:
        images: grey (H, W) or colour (H, W, 3), all of one size.
        base: for each image the base maps to draw, (B, h, w); each sums to 1.
        reconstructed: for each image the maps of the positions, (R, h, w), equation (4).
        positions_R2: y, x of each position on the grid of the maps.
        cosines: for each image and position the largest cosine between its map and a base map, (R,); the title of the map.
        names: titles of the columns of base maps.
    """
    base_maps = len(base[0])
    rows, columns = len(images), 1 + base_maps + len(positions_R2)
    height, width = images[0].shape[:2]
    figure = Figure(figsize=(1.25 * columns, (1.25 * height / width + 0.12) * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    extent = (-0.5, base[0].shape[-1] - 0.5, base[0].shape[-2] - 0.5, -0.5)
    # the image in every column, the maps over it, and a cross at the position of each reconstructed map
    for k, image in enumerate(images):
        for axis in axes[k]:
            axis.imshow(image, cmap="gray", extent=extent, aspect="auto")
            axis.set_box_aspect(height / width)
        for axis, heat in zip(axes[k, 1:], [*base[k], *reconstructed[k]], strict=True):
            axis.imshow(heat, cmap="inferno", alpha=0.65, vmin=0, extent=extent, interpolation="bilinear", aspect="auto")
        for r, (axis, (y, x)) in enumerate(zip(axes[k, 1 + base_maps :], positions_R2, strict=True)):
            axis.plot(x, y, "+", color="cyan", markersize=8, markeredgewidth=2)
            if cosines is not None:
                axis.set_title(f"{cosines[k][r]:.2f}", fontsize=8, pad=2)
    # titles of the columns
    for axis, title in zip(axes[0], ["image", *(names or ["base map"] * base_maps)], strict=False):
        axis.set_title(title, fontsize=8)
    if cosines is None:
        for axis in axes[0, 1 + base_maps :]:
            axis.set_title("map at +", fontsize=8)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


def most_different(maps_DHW: NDArray, count: int) -> list[int]:
    """Select `count` maps of (D, H, W) that differ: the most peaked first, then the least similar to those before it.

    Examples:
        >>> most_different(np.array([[[1.0, 0.0]], [[0.9, 0.1]], [[0.2, 0.8]]]), 2)
        [0, 2]
    """
    flat_DP = maps_DHW.reshape(len(maps_DHW), -1)
    unit_DP = flat_DP / np.linalg.norm(flat_DP, axis=1, keepdims=True)
    selected = [int(flat_DP.max(1).argmax())]
    while len(selected) < min(count, len(maps_DHW)):
        similarity_D = (unit_DP @ unit_DP[selected].T).max(1)
        similarity_D[selected] = np.inf
        selected.append(int(similarity_D.argmin()))
    return selected


def matches(
    left_HW: NDArray,
    right_HW: NDArray,
    from_M2: NDArray,
    to_M2: NDArray,
    is_correct_M: NDArray,
    limit: int = 300,
    labels: tuple[str, str] = ("correct (within 3 px)", "wrong"),
) -> Figure:
    """Draw two photographs side by side and their matches as lines, correct ones in green and wrong ones in orange.

    Args:
        left_HW, right_HW: grey; the shorter one is padded with white.
        from_M2, to_M2: x, y of the matches in the left and the right photograph.
        is_correct_M: (M,), which matches are correct.
        limit: maximum number of lines, an evenly spaced sample of the matches.
        labels: of green and orange in the legend.
    """
    height = max(len(left_HW), len(right_HW))
    left_HW, right_HW = (
        np.pad(photo, ((0, height - len(photo)), (0, 0)), constant_values=255) for photo in (left_HW, right_HW)
    )
    sample = np.linspace(0, len(from_M2) - 1, min(limit, len(from_M2))).astype(int)
    width = left_HW.shape[1]
    figure = Figure(figsize=(12, 12 * height / (width + right_HW.shape[1]) + 0.4), layout="constrained")
    axis = figure.subplots()
    axis.imshow(np.hstack([left_HW, right_HW]), cmap="gray")
    lines_M22 = np.stack([from_M2[sample], to_M2[sample] + np.array([width, 0])], 1)
    is_correct = is_correct_M[sample]
    for is_drawn, colour, label in ((is_correct, RIGHT, labels[0]), (~is_correct, WRONG, labels[1])):
        axis.add_collection(LineCollection(list(lines_M22[is_drawn]), colors=colour, linewidths=0.8, label=literal(label)))
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    axis.set_axis_off()
    return figure


def reid_curves(metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Plot over steps what was logged: loss (running mean), alphas, attention statistics, and rank-1.

    Args:
        metrics: the rows of metrics.jsonl, by the label of the run.
    """
    logged = {name for rows in metrics.values() for row in rows for name in row}
    plots = {"loss": _draw_losses, "alpha": _draw_alphas, "attention": _draw_entropies, "rank1": _draw_rank}
    used_plots = [plot for prefix, plot in plots.items() if any(name.startswith(prefix) for name in logged)]
    figure = Figure(figsize=(4.4 * len(used_plots), 3.4), layout="constrained")
    for axis, plot in zip(figure.subplots(1, len(used_plots), squeeze=False)[0], used_plots, strict=True):
        plot(axis, metrics)
    return figure


def _draw_losses(axis: Axes, metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    for label, rows in metrics.items():
        _draw_loss(axis, label, rows)
    _decorate(axis, "training loss, running mean", "step", "loss")


def _draw_entropies(axis: Axes, metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    for label, rows in metrics.items():
        with_attention = [row for row in rows if any(name.startswith("attention") for name in row)]
        if not with_attention:
            continue
        steps = [row["step"] for row in with_attention]
        for name in sorted(name for name in with_attention[0] if name.endswith(("_entropy", "_overlap"))):
            axis.plot(steps, [row[name] for row in with_attention], label=literal(f"{label} {name}"))
    _decorate(axis, "base maps: entropy, overlap", "step", "1: uniform, identical")
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


def det_curve(fmr: Sequence[float], fnmr: Sequence[float]) -> Figure:
    """Plot the detection error trade-off: FNMR against FMR, which is on a logarithmic scale.

    Args:
        fmr: false match rates, ascending.
        fnmr: the false non-match rate at each.
    """
    figure = Figure(figsize=(4.4, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.plot(fmr, fnmr)
    axis.set(xscale="log", ylim=(0, 1))
    _decorate(axis, "detection error trade-off", "false match rate", "false non-match rate")
    return figure


def ranked_lists(lists: Sequence[tuple[NDArray, Sequence[NDArray], Sequence[bool]]]) -> Figure:
    """Draw one row per query: the query, then its nearest gallery images, framed green if correct and orange if not.

    Args:
        lists: for each query its image (H, W, 3), the gallery images of the same size, and whether each shows the same person.
    """
    columns = 1 + max(len(images) for _, images, _ in lists)
    height, width = lists[0][0].shape[:2]
    figure = Figure(figsize=(1.0 * columns, (1.0 * height / width + 0.12) * len(lists) + 0.3), layout="constrained")
    axes = figure.subplots(len(lists), columns, squeeze=False)
    for row, (query, images, are_correct) in zip(axes, lists, strict=True):
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].imshow(query)
        for axis, image, is_correct in zip(row[1:], images, are_correct, strict=False):
            axis.imshow(image)
            axis.spines[:].set(visible=True, color=RIGHT if is_correct else WRONG, linewidth=4)
    for axis, title in zip(axes[0], ["query", *(str(rank) for rank in range(1, columns))], strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def colour_indices(numbers_HW: NDArray) -> NDArray:
    """Colour integers (H, W) so that different numbers get different hues, uint8 (H, W, 3)."""
    hues = (numbers_HW * 0.618034) % 1.0  # the golden ratio keeps neighbours apart
    return np.round(255 * hsv_to_rgb(np.stack([hues, np.full_like(hues, 0.55), np.full_like(hues, 0.9)], -1))).astype(np.uint8)


def differences(labels: Sequence[str], intervals: Sequence[tuple[float, float, float]], title: str, unit: str) -> Figure:
    """Plot differences as dots with their intervals, one row per label from the top, and a line at 0.

    Args:
        labels: names of the rows.
        intervals: difference, low and high of each row; bounds that are NaN are not drawn.
        title: of the figure.
        unit: label of the x axis.
    """
    figure = Figure(figsize=(8, 0.34 * len(labels) + 1.1), layout="constrained")
    axis = figure.subplots()
    heights = np.arange(len(labels))[::-1]
    middle, low, high = np.array(intervals, float).reshape(-1, 3).T
    bounds = np.nan_to_num(np.stack([middle - low, high - middle]))
    axis.errorbar(middle, heights, xerr=bounds, fmt="o", color="#1b7f60", ecolor="#7fbfa9", elinewidth=3, capsize=0)
    axis.axvline(0, color="#5c6577", linewidth=1)
    axis.set_yticks(heights, [literal(label) for label in labels])
    axis.set(title=title, xlabel=unit, ylim=(-0.7, len(labels) - 0.3))
    axis.grid(axis="x", alpha=0.3)
    return figure


def contact_sheet(images: Sequence[NDArray], captions: Sequence[str], columns: int = 12) -> Figure:
    """Draw small images in rows, each with its caption."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.1 * columns, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.set_title(literal(caption), fontsize=7)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's suffix; the same figure gives the same bytes."""
    kind = path.suffix[1:]
    with matplotlib.rc_context({"svg.hashsalt": "csametric", "svg.fonttype": "path"}):
        no_date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        write_atomically(path, lambda out: figure.savefig(out, format=kind, dpi=DOTS_PER_INCH, metadata=no_date))


def _draw_loss(axis: Axes, label: str, rows: Sequence[Mapping[str, float]]) -> None:
    steps, losses = np.array([(row["step"], row["loss"]) for row in rows]).T
    window = min(10, max(1, len(losses) // 10))
    axis.plot(steps[window - 1 :], np.convolve(losses, np.ones(window) / window, "valid"), label=literal(label))


def _decorate(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set(title=title, xlabel=x, ylabel=y)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend()
