"""The table and report of runs on Brown / UBC PhotoTour."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from csametric.data.brown import brown_root, read_brown
from csametric.files import write_text
from csametric.inference.load import load
from csametric.inference.patches import PatchEmbedder
from csametric.reports.attention_report import attention_section, grey_to_colours, has_attention
from csametric.reports.sections import Metrics, settings_sections, training_section
from csametric.runs.experiment import BrownExperiment
from csametric.runs.folder import damaged_scores, read_scores
from csametric.visualization import figures
from csametric.visualization.page import Section, Table, render

ATTENDED_PATCHES = 4
EXPLANATION = (
    "False positive rate at 95 % recall on the labelled pairs of the subsets that were not used for training, in per cent "
    "(lower is better; Brown and Lowe 2007). One seed."
)


def brown_table(scores: Mapping[str, Mapping[str, float]]) -> Table:
    """One column per run, one row per subset, and the means.

    Args:
        scores: FPR95 in [0, 1], by the label of the run and by subset.

    Examples:
        >>> brown_table({"HardNet": {"liberty": 0.02, "notredame": 0.01}}).rows
        [['liberty', '2.00'], ['notredame', '1.00'], ['mean', '1.50']]
    """
    subsets = list(dict.fromkeys(subset for rates in scores.values() for subset in rates))
    rows = [[subset, *(_percent(rates.get(subset)) for rates in scores.values())] for subset in subsets]
    rows.append(["mean", *(_percent(sum(rates.values()) / len(rates)) for rates in scores.values())])
    return Table(header=["FPR95, %", *scores], rows=rows)


def report_brown(title: str, runs: Mapping[str, Path], path: Path) -> Table:
    """Write the report of runs as one HTML page.

    Args:
        title: of the page.
        runs: finished run folders, by their label on the page.
        path: of the page.

    Returns:
        The table of scores.
    """
    table = brown_table({label: _read_rates(folder) for label, folder in runs.items()})

    def draw(metrics: Metrics) -> Figure:
        return figures.descriptor_curves(metrics, "pairs of a test subset")

    caption = "Training loss, and FPR95 on a sample of the first test subset during training"
    sections = [
        Section(title="How good are the descriptors?", text=EXPLANATION, table=table),
        *(_attention_section(label, folder) for label, folder in runs.items() if has_attention(folder)),
        training_section(runs, draw, caption),
        *settings_sections(runs),
    ]
    write_text(path, render(title, EXPLANATION, sections))
    return table


def _read_rates(folder: Path) -> dict[str, float]:
    """FPR95 of a run by subset."""
    rates: dict[str, float] = read_scores(folder, {"fpr95": dict})["fpr95"]
    if not rates or not all(isinstance(rate, float | int) for rate in rates.values()):
        raise damaged_scores(folder, f"fpr95 is {rates}")
    return rates


def _attention_section(label: str, folder: Path) -> Section:
    """What a run attends to in patches of the subset it was trained on."""
    model = load(folder)
    assert isinstance(model, PatchEmbedder)
    assert isinstance(model.experiment, BrownExperiment)
    settings = model.experiment.data
    patches = read_brown(brown_root(settings) / settings.train, settings.resampling).patches
    indices = np.linspace(0, len(patches) - 1, ATTENDED_PATCHES).astype(int)
    return attention_section(label, [model.attend(grey_to_colours(patches[index])) for index in indices])


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def brown_scores(folder: Path) -> Table:
    """The scores of a finished run, with a caption that says what they measure."""
    return replace(brown_table({"per cent": _read_rates(folder)}), caption=EXPLANATION)
