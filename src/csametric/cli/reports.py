"""From run folders to a report: load, look, draw."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import PartialState
from torch import nn

from csametric.attention.layers import CompressedSelfAttention
from csametric.cli.sections import settings_sections
from csametric.cli.tables import print_table
from csametric.data.photos import PhotoPatches, PhotoSettings, open_photo_patches
from csametric.data.stereo import motorcycle
from csametric.inference import PatchEmbedder, load
from csametric.models.l2net import normalize_patches
from csametric.models.sift import sift_descriptors
from csametric.report import figures
from csametric.report.page import Section, Table, render
from csametric.training import validation
from csametric.training.checkpoint import check_data, read_metrics, read_scores, write_text
from csametric.training.descriptors import to_network
from csametric.training.experiment import DescriptorExperiment
from csametric.training.validation import DescriptorScores

LEVEL_SCORES = {"fpr95": "FPR95, %", "accuracy": "NN accuracy, %", "average_precision": "matching AP, %"}
ATTENDED_PATCHES = 6
POSITIONS = np.array([[4, 4], [8, 8], [12, 11]])


def baseline_scores(patches: PhotoPatches) -> dict[str, DescriptorScores]:
    """SIFT and RootSIFT on the patches the networks get."""
    return {
        "SIFT": validation.score(sift_descriptors, patches),
        "RootSIFT": validation.score(lambda cut: sift_descriptors(cut, root=True), patches),
    }


def run_scores(folder: Path) -> DescriptorScores:
    """The scores a finished run wrote."""
    return validation.scores_from_dict(read_scores(folder))


def score_table(scores: Mapping[str, DescriptorScores]) -> Table:
    """A column a descriptor, a row a score."""
    levels = next(iter(scores.values())).levels
    rows = [
        [f"{level}: {name}", *(f"{100 * getattr(each.levels[level], field):.2f}" for each in scores.values())]
        for level in levels
        for field, name in LEVEL_SCORES.items()
    ]
    rows.append(["stereo: within 3 px, %", *(f"{100 * each.stereo.precision:.1f}" for each in scores.values())])
    rows.append(["stereo: correct matches", *(f"{each.stereo.correct:,}" for each in scores.values())])
    return Table(header=["", *scores], rows=rows)


def report_runs(title: str, runs: Mapping[str, Path], path: Path) -> None:
    """Write the report and print its table; on the main process only, where there are several."""
    if PartialState().is_main_process:
        table = score_table(write_report(title, runs, path))
        print_table(title, table.header, table.rows)
        print(f"open {path}")


def write_report(title: str, runs: Mapping[str, Path], path: Path) -> dict[str, DescriptorScores]:
    """Write one self-contained HTML page about finished runs of the same data, and return the table's scores.

    Args:
        runs: the run folders by the label they get on the page.
    """
    models = {label: _load_descriptor(folder) for label, folder in runs.items()}
    patches = open_photo_patches(photo_settings(next(iter(models.values()))))
    for folder in runs.values():
        check_data(folder, {"train": patches.summary.train, "held_out": patches.summary.held_out})
    scores = {**baseline_scores(patches), **{label: run_scores(folder) for label, folder in runs.items()}}
    attending = {label: model for label, model in models.items() if _attention(model)}
    sections = [
        _table_section(scores),
        _curve_section(runs),
        *(_attention_section(label, model, patches) for label, model in attending.items()),
        _match_section(models),
        *settings_sections(runs),
    ]
    subtitle = f"Trained and evaluated on photographs: {patches.summary}."
    write_text(path, render(title, subtitle, sections))
    return scores


def photo_settings(model: PatchEmbedder) -> PhotoSettings:
    """The photographs a descriptor was trained on; the bundled ones where it was trained on others' patches."""
    experiment = model.experiment
    return experiment.data if isinstance(experiment, DescriptorExperiment) else PhotoSettings()


def _load_descriptor(folder: Path) -> PatchEmbedder:
    model = load(folder)
    assert isinstance(model, PatchEmbedder)
    return model


def _table_section(scores: Mapping[str, DescriptorScores]) -> Section:
    return Section(
        title="How good are the descriptors?",
        text=(
            "Held-out photographs: each keypoint's upright patch against a view of it at three levels. Among all pairs "
            "within a photograph, FPR95 is the share of strangers accepted where 95 % of the true pairs are (lower is "
            "better); NN accuracy is the share of patches whose nearest neighbour is their own, AP the average precision of "
            "those matches (higher is better); means over photographs. Stereo: mutual nearest neighbours between two "
            "real photographs, judged by the true disparity. SIFT and RootSIFT see the same patches. One seed: "
            "differences of a few tenths are noise."
        ),
        table=score_table(scores),
    )


def _curve_section(runs: Mapping[str, Path]) -> Section:
    metrics = {label: read_metrics(folder) for label, folder in runs.items()}
    caption = "Training loss, and FPR95 on held-out photographs as training goes on"
    return Section(title="Training", pictures=[(figures.data_uri(figures.curves(metrics)), caption)])


def _attention(model: PatchEmbedder) -> CompressedSelfAttention | None:
    layer = getattr(model.model, "attention", None)
    return layer if isinstance(layer, CompressedSelfAttention) else None


@torch.inference_mode()
def _attention_section(label: str, model: PatchEmbedder, patches: PhotoPatches) -> Section:
    layer = _attention(model)
    assert layer is not None
    chosen = np.linspace(0, len(patches.held_out) - 1, ATTENDED_PATCHES + 2).astype(int)[1:-1]
    shown = np.asarray(patches.held_out[chosen, 0])
    local = cast(nn.Module, model.model.local)
    features = local(normalize_patches(to_network(shown, model.device)))
    maps = layer.attention(features)
    reconstructed = np.stack([maps.at(int(y), int(x))[:, 0].cpu().numpy() for y, x in POSITIONS], 1)
    figure = figures.attention(shown, maps.base[:, 0].cpu().numpy(), reconstructed, POSITIONS)
    caption = (
        f"{label}: real held-out patches, three of the {layer.maps} base attention maps (those that overlap least), and "
        f"the reconstructed map of three positions; alpha = {layer.alpha.item():.3f}"
    )
    return Section(title=f"What {label} looks at", pictures=[(figures.data_uri(figure), caption)])


def _match_section(models: Mapping[str, PatchEmbedder]) -> Section:
    pair = motorcycle()
    pictures = []
    for label, model in models.items():
        result = validation.score_stereo(model.describe)
        left, right = result.matching.matches.T
        figure = figures.matches(
            pair.left, pair.right, result.left.centres[left], result.right.centres[right], result.matching.is_correct
        )
        caption = (
            f"{label}: {result.matching.correct:,} of {len(left):,} mutual nearest neighbours lie within 3 px of the true "
            "place; an even sample is drawn"
        )
        pictures.append((figures.data_uri(figure), caption))
    return Section(title="Matches between two real photographs", pictures=pictures)
