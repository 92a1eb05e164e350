"""The paper's Figure 5 from attended images, and statistics that test what the paper says about it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from csametric.attention.recording import Attended
from csametric.attention.statistics import attention_statistics, cosines_to_base_maps
from csametric.data.datasets import read_dataset
from csametric.data.decoding import UnreadableImageError, decode_colours
from csametric.errors import UserError
from csametric.files import write_text
from csametric.inference.attended import AttendedImage
from csametric.inference.images import ImageEmbedder
from csametric.inference.load import load
from csametric.inference.patches import PatchEmbedder
from csametric.runs.experiment import PatchExperiment, ReidExperiment
from csametric.runs.folder import read_experiment
from csametric.visualization import figures
from csametric.visualization.explorer import LayerView, encode_view
from csametric.visualization.page import Section, Table, render

BASE_SHOWN = 2  # base maps per image
EXPLORED, EXPLORED_ALONE = 2, 8  # images to explore in a report, and in a page of their own
STATISTICS_MEAN = (
    "Entropy is the entropy of the base maps relative to that of a uniform map; at 1, all base maps are uniform and the layer "
    "only adds a mean. Overlap is the mean cosine similarity of two base maps; at 1, all are alike. Used maps is how many base "
    "maps the weights spread over. The largest cosine says how close a reconstructed map is to a base map; 1 everywhere would "
    "mean that the maps are redundant, as the paper says, or that all base maps are alike. Means over the images shown."
)
SIX_POSITIONS = ((0.1, 0.5), (0.28, 0.3), (0.4, 0.7), (0.55, 0.35), (0.7, 0.65), (0.9, 0.4))  # fractions of height and width


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which maps a figure shows."""

    layer: str  # its place, for example "stage 2"
    group: int = 0  # of channels, from 0
    positions: Sequence[tuple[float, float]] = SIX_POSITIONS  # (y, x), fractions of height and width


def attention_figure(images: Sequence[AttendedImage], selection: Selection) -> Figure:
    """Draw one row per image: the two base maps that are nearest to the most maps, then the maps of some positions.

    The number above the map of a position is its largest cosine similarity to any base map.

    Args:
        images: at least one, all of one model.
        selection: which maps to draw.

    Raises:
        UserError: the model has no such layer or group.
    """
    layers = [_layer(image, selection) for image in images]
    grid = _grid(selection.positions, layers[0].maps.base.shape[-2:])
    cosines = [cosines_to_base_maps(layer.maps)[0, selection.group].numpy() for layer in layers]
    return figures.attention_maps(
        [image.image for image in images],
        [
            layer.maps.base[0, selection.group].numpy()[_nearest(layer_cosines)]
            for layer, layer_cosines in zip(layers, cosines, strict=True)
        ],
        [np.stack([layer.maps.at(y=y, x=x)[0, selection.group].numpy() for y, x in grid]) for layer in layers],
        grid,
        [np.array([layer_cosines[:, y, x].max() for y, x in grid]) for layer_cosines in cosines],
    )


def attend_files(
    model: ImageEmbedder | PatchEmbedder, paths: Sequence[Path], skip_unreadable: bool
) -> tuple[list[AttendedImage], dict[Path, str]]:
    """Record what a model attends to in image files.

    Args:
        model: with compressed self-attention.
        paths: of the images.
        skip_unreadable: whether to skip files that cannot be read, instead of raising.

    Returns:
        One entry per readable file, and the problem of each other file by its path.

    Raises:
        UserError: the model has no such attention, or a file cannot be read.
    """
    attended, problems = [], {}
    for path in paths:
        try:
            attended.append(model.attend(decode_colours(path)))
        except UnreadableImageError as error:
            if not skip_unreadable:
                raise
            problems[path] = str(error)
    return attended, problems


def has_attention(run: Path) -> bool:
    """Whether a run's network has compressed self-attention."""
    experiment = read_experiment(run)
    assert isinstance(experiment, PatchExperiment | ReidExperiment)
    return experiment.model.attention == "csa"


def attend_queries(run: Path, count: int = 4) -> list[AttendedImage]:
    """Record the attention on evenly spread queries of the dataset that a run was trained on.

    Args:
        run: a re-identification run.
        count: at most so many queries.
    """
    model = load(run)
    assert isinstance(model, ImageEmbedder)
    queries = read_dataset(model.experiment.data.kind, model.experiment.data.path, model.experiment.data.camera_pattern).query
    indices = np.linspace(0, len(queries) - 1, min(count, len(queries))).astype(int)
    return [model.attend(decode_colours(queries[index].path)) for index in indices]


def figure_5(run: Path, count: int = 4) -> tuple[Figure, str]:
    """The paper's Figure 5, drawn from a run on queries of the dataset it was trained on, and its caption."""
    images = attend_queries(run, count)
    selection = Selection(layer=layer_with_largest_alpha(images[0]))
    cosines = torch.cat([cosines_to_base_maps(_layer(image, selection).maps).amax(2).flatten() for image in images])
    caption = (
        f"Figure 5: queries, the two base maps of {selection.layer} (group 1) that are nearest to the most maps, and the "
        "reconstructed maps of six positions; the number above a map is its largest cosine similarity to a base map. Over all "
        f"positions of these images its median is {cosines.median():.3f}, its 5th percentile {cosines.quantile(0.05):.3f}."
    )
    return attention_figure(images, selection), caption


def attention_section(
    label: str, images: Sequence[AttendedImage], selection: Selection | None = None, explored: int = EXPLORED
) -> Section:
    """A section of a report about a run's attention: statistics of its layers, maps as in Figure 5, and an explorer.

    Args:
        label: of the run.
        images: attended by it, at least one.
        selection: which maps to draw; by default those of the layer with the largest alpha.
        explored: how many of the images can be explored.
    """
    selection = selection or Selection(layer=layer_with_largest_alpha(images[0]))
    caption = (
        f"{selection.layer}, group {selection.group + 1}: two base maps, then the maps of {len(selection.positions)} "
        "positions; the number above a map is its largest cosine similarity to a base map"
    )
    return Section(
        title=f"What {label} looks at",
        text=STATISTICS_MEAN,
        table=statistics_table(images),
        pictures=[(figures.data_uri(attention_figure(images, selection)), caption)],
        views=[(explorer_view(image), "Point at a position, or use the arrow keys") for image in images[:explored]],
    )


def write_attention_page(path: Path, label: str, images: Sequence[AttendedImage], selection: Selection) -> None:
    """Write the section of `attention_section` as a page of its own, with more images to explore."""
    section = attention_section(label, images, selection, EXPLORED_ALONE)
    limit = f", the first {EXPLORED_ALONE} to explore" if len(images) > EXPLORED_ALONE else ""
    write_text(path, render(section.title, f"Images: {len(images)}{limit}", [replace(section, title="Maps")]))


def grey_to_colours(patch_HW: NDArray) -> NDArray:
    """A grey patch (H, W) as an RGB image (H, W, 3), which is what `attend` takes.

    Examples:
        >>> grey_to_colours(np.zeros((32, 32), np.uint8)).shape
        (32, 32, 3)
    """
    return np.repeat(np.asarray(patch_HW)[..., None], 3, axis=2)


def layer_with_largest_alpha(image: AttendedImage) -> str:
    """The place of the layer with the largest absolute alpha."""
    return max(image.layers, key=lambda place: abs(image.layers[place].alpha))


def contact_sheet(images: Sequence[AttendedImage], names: Sequence[str], selection: Selection) -> Figure:
    """Draw small images, each with a map whose colours say which base map has the largest weight at each position."""
    panels, captions = [], []
    for image, name in zip(images, names, strict=True):
        heaviest = _layer(image, selection).maps.weights[0, selection.group].argmax(0).numpy()
        panels += [image.image, figures.colour_indices(heaviest)]
        captions += [shorten(name), f"{len(np.unique(heaviest))} maps"]
    return figures.contact_sheet(panels, captions)


def shorten(name: str, limit: int = 14) -> str:
    """The end of a long name, where file names differ, after an ellipsis.

    Examples:
        >>> shorten("0001_c1s1_001051_00")
        '...1_001051_00'
    """
    return name if len(name) <= limit else f"...{name[3 - limit :]}"


def statistics_table(images: Sequence[AttendedImage]) -> Table:
    """One row per layer: whether it is healthy or collapsed, and how close reconstructed maps are to base maps."""
    rows = []
    for place in images[0].layers:
        layers = [image.layers[place] for image in images]
        statistics = [attention_statistics(layer.maps) for layer in layers]
        cosines = torch.cat([cosines_to_base_maps(layer.maps).amax(2) for layer in layers]).numpy()
        low, middle, high = np.percentile(cosines, [25, 50, 75])
        rows.append(
            [
                place,
                f"{layers[0].alpha:+.3f}",
                f"{np.mean([image.entropy for image in statistics]):.3f}",
                f"{np.mean([image.overlap for image in statistics]):.3f}",
                f"{np.mean([image.used_maps for image in statistics]):.1f} of {layers[0].maps.base.shape[2]}",
                f"{middle:.3f} ({low:.3f} to {high:.3f})",
            ]
        )
    header = ["layer", "alpha", "entropy", "overlap", "used maps", "largest cosine, median (quartiles)"]
    return Table(header=header, rows=rows)


def _layer(image: AttendedImage, selection: Selection) -> Attended:
    if selection.layer not in image.layers:
        raise UserError(f"no compressed self-attention after {selection.layer}; use one of {', '.join(image.layers)}")
    layer = image.layers[selection.layer]
    groups = layer.maps.base.shape[1]
    if not 0 <= selection.group < groups:
        raise UserError(f"group must be in 1 to {groups}, got {selection.group + 1}")
    return layer


def _grid(positions: Sequence[tuple[float, float]], size: Sequence[int]) -> NDArray:
    """Positions as fractions of height and width to positions y, x on a grid of maps, (R, 2)."""
    return np.minimum((np.array(positions) * np.array(size)).astype(int), np.array(size) - 1)


def _nearest(cosines_DHW: NDArray) -> list[int]:
    """The indices of the base maps that are nearest to the maps of the most positions, in descending order."""
    votes = np.bincount(cosines_DHW.argmax(0).ravel(), minlength=len(cosines_DHW))
    return [int(index) for index in np.argsort(-votes, kind="stable")[:BASE_SHOWN]]


def explorer_view(attended: AttendedImage) -> dict[str, Any]:
    """What the explorer shows about an image and its attention, ready for JSON; see `encode_view`."""
    layers = [
        LayerView(name=name, alpha=layer.alpha, base=layer.maps.base[0].numpy(), weights=layer.maps.weights[0].numpy())
        for name, layer in attended.layers.items()
    ]
    return encode_view(attended.image, layers)
