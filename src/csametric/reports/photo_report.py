"""The table and report of descriptors that were trained on photographs."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from csametric.data.photo_patches import PhotoPatches, PhotoSettings, open_photo_patches
from csametric.data.stereo import motorcycle_patches, read_motorcycle
from csametric.evaluation.descriptor_scores import DescriptorScores, match_stereo, score_descriptor, scores_from_dict
from csametric.files import write_text
from csametric.inference.load import load
from csametric.inference.patches import PatchEmbedder
from csametric.models.sift import sift_descriptors
from csametric.reports.attention_report import attention_section, grey_to_colours, has_attention
from csametric.reports.sections import settings_sections, training_section
from csametric.runs.experiment import DescriptorExperiment
from csametric.runs.folder import check_data, damaged_scores, read_scores
from csametric.visualization import figures
from csametric.visualization.page import Section, Table, render

LEVEL_SCORES = {"fpr95": "FPR95, %", "accuracy": "NN accuracy, %", "average_precision": "matching AP, %"}
ATTENDED_PATCHES = 6
EXPLANATION = (
    "Held-out photographs: each keypoint's upright patch is compared with views of all keypoints, at three levels of "
    "difficulty. FPR95 is the false positive rate at 95 % recall over all pairs within a photograph (lower is better). NN "
    "accuracy is the share of patches whose nearest neighbour is a view of the same keypoint, AP the average precision of "
    "those matches (higher is better). Means over photographs. Stereo: mutual nearest neighbours between two real photographs, "
    "checked against the true disparity. SIFT and RootSIFT see the same patches. One seed: differences of a few tenths are "
    "noise."
)


def baseline_scores(patches: PhotoPatches) -> dict[str, DescriptorScores]:
    """The scores of SIFT and RootSIFT on the patches that the networks see."""
    return {
        "SIFT": score_descriptor(sift_descriptors, patches, motorcycle_patches()),
        "RootSIFT": score_descriptor(partial(sift_descriptors, root=True), patches, motorcycle_patches()),
    }


def run_scores(folder: Path) -> DescriptorScores:
    """The scores of a finished run, from its folder."""
    scores = read_scores(folder, {"levels": dict, "stereo": dict})
    try:
        return scores_from_dict(scores)
    except (TypeError, AttributeError) as error:
        raise damaged_scores(folder, error) from error


def score_table(scores: Mapping[str, DescriptorScores]) -> Table:
    """One column per descriptor, one row per score."""
    levels = next(iter(scores.values())).levels
    rows = [
        [f"{level}: {name}", *(f"{100 * getattr(score.levels[level], field):.2f}" for score in scores.values())]
        for level in levels
        for field, name in LEVEL_SCORES.items()
    ]
    rows.append(["stereo: within 3 px, %", *(f"{100 * score.stereo.precision:.1f}" for score in scores.values())])
    rows.append(["stereo: correct matches", *(f"{score.stereo.correct:,}" for score in scores.values())])
    return Table(header=["", *scores], rows=rows)


def report_photos(title: str, runs: Mapping[str, Path], path: Path) -> Table:
    """Write the report of runs as one HTML page.

    Args:
        title: of the page.
        runs: finished run folders, by their label on the page; all of them trained on the same photographs.
        path: of the page.

    Returns:
        The table of scores, of SIFT and RootSIFT too.
    """
    return score_table(write_report(title, runs, path))


def write_report(title: str, runs: Mapping[str, Path], path: Path) -> dict[str, DescriptorScores]:
    """Do as `report_photos`, but return the scores in place of their table."""
    models = {label: _load_descriptor(folder) for label, folder in runs.items()}
    patches = open_photo_patches(photo_settings(next(iter(models.values()))))
    for folder in runs.values():
        check_data(folder, {"train": patches.summary.train, "held_out": patches.summary.held_out})
    scores = {**baseline_scores(patches), **{label: run_scores(folder) for label, folder in runs.items()}}
    sections = [
        _table_section(scores),
        _curve_section(runs),
        *(_attention_section(label, models[label], patches) for label, folder in runs.items() if has_attention(folder)),
        _match_section(models),
        *settings_sections(runs),
    ]
    subtitle = f"Trained and evaluated on photographs: {patches.summary}."
    write_text(path, render(title, subtitle, sections))
    return scores


def photo_settings(model: PatchEmbedder) -> PhotoSettings:
    """The photographs that a descriptor was trained on; the bundled ones if it was trained on Brown."""
    experiment = model.experiment
    return experiment.data if isinstance(experiment, DescriptorExperiment) else PhotoSettings()


def _load_descriptor(folder: Path) -> PatchEmbedder:
    model = load(folder)
    assert isinstance(model, PatchEmbedder)
    return model


def _table_section(scores: Mapping[str, DescriptorScores]) -> Section:
    return Section(
        title="How good are the descriptors?",
        text=EXPLANATION,
        table=score_table(scores),
    )


def _curve_section(runs: Mapping[str, Path]) -> Section:
    caption = "Training loss, and FPR95 on held-out photographs during training"
    return training_section(runs, figures.descriptor_curves, caption)


def _attention_section(label: str, model: PatchEmbedder, patches: PhotoPatches) -> Section:
    indices = np.linspace(0, len(patches.held_out) - 1, ATTENDED_PATCHES + 2).astype(int)[1:-1]
    return attention_section(label, [model.attend(grey_to_colours(patch)) for patch in patches.held_out[indices, 0]])


def _match_section(models: Mapping[str, PatchEmbedder]) -> Section:
    pair, stereo = read_motorcycle(), motorcycle_patches()
    pictures = []
    for label, model in models.items():
        matching = match_stereo(model.describe, stereo)
        left, right = matching.matches.T
        figure = figures.matches(
            pair.left, pair.right, stereo.left_centres[left], stereo.right_centres[right], matching.is_correct
        )
        caption = (
            f"{label}: {matching.correct:,} of {len(left):,} mutual nearest neighbours lie within 3 px of the true "
            "position; an even sample of them is drawn"
        )
        pictures.append((figures.data_uri(figure), caption))
    return Section(title="Matches between two real photographs", pictures=pictures)


def photo_scores(folder: Path) -> Table:
    """The scores of a finished run, with a caption that says what they measure."""
    return replace(score_table({"": run_scores(folder)}), caption=EXPLANATION)
