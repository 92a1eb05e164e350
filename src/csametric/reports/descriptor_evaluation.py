"""Evaluation of local descriptors on each kind of data."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from csametric.data.brown import SUBSETS, BrownSettings, open_brown_tests
from csametric.data.datasets import split_data
from csametric.data.photo_patches import check_held_out, open_photo_patches
from csametric.data.stereo import motorcycle_patches
from csametric.evaluation.descriptor_scores import score_descriptor
from csametric.evaluation.verification import fpr95, pair_distances
from csametric.inference.patches import PatchEmbedder
from csametric.progress import show_data_progress
from csametric.reports.brown_report import brown_table
from csametric.reports.evaluations import Evaluation
from csametric.reports.geometry_evaluation import on_posed_pairs, on_sequences
from csametric.reports.hpatches_scores import evaluate_release
from csametric.reports.photo_report import baseline_scores, photo_settings, score_table
from csametric.runs.experiment import BrownExperiment


def evaluate_descriptor(run: Path, model: PatchEmbedder, data: str | None) -> Evaluation:
    """Score a descriptor, on some kinds of data beside SIFT and RootSIFT.

    Args:
        run: its folder, for labels.
        model: the loaded run.
        data: KIND:PATH, where KIND is a key of `EVALUATIONS`; None for the data it was trained with.

    Raises:
        UserError: the kind is unknown, or the data cannot be used.
    """
    kind, path = _trained_on(model) if data is None else split_data(data, EVALUATIONS)
    return EVALUATIONS[kind](run, model, path)


def _trained_on(model: PatchEmbedder) -> tuple[str, str]:
    """The kind and path of the data that a descriptor was trained with."""
    if isinstance(model.experiment, BrownExperiment):
        return "brown", model.experiment.data.root
    return "photos", photo_settings(model).folder


def _on_photos(run: Path, model: PatchEmbedder, folder: str) -> Evaluation:
    photos = replace(photo_settings(model), folder=folder)
    with show_data_progress(True, "cutting patches", "photographs") as progress:
        patches = open_photo_patches(photos, progress=progress)
    check_held_out(patches)
    scores = baseline_scores(patches)
    scores[run.resolve().name] = score_descriptor(model.describe, patches, motorcycle_patches())
    return Evaluation(title=f"{run} on {photos.folder}", table=score_table(scores), note=str(patches.summary))


def _on_brown(run: Path, model: PatchEmbedder, root: str) -> Evaluation:
    settings, names = BrownSettings(), list(SUBSETS)
    if isinstance(model.experiment, BrownExperiment):
        settings = model.experiment.data
        names.remove(settings.train)
    with show_data_progress(True, "cutting patches", "sheets") as progress:
        tests = open_brown_tests(replace(settings, root=root), names, None, progress)
    rates = {
        name: fpr95(pair_distances(model.describe, subset.patches, pairs.patches), pairs.is_match)
        for name, (subset, pairs) in tests.items()
    }
    table = brown_table({run.resolve().name: rates})
    return Evaluation(title=f"{run} on {root}", table=table)


def _on_hpatches(run: Path, model: PatchEmbedder, root: str) -> Evaluation:
    return evaluate_release(run.resolve().name, model.describe, Path(root))


EVALUATIONS: dict[str, Callable[[Path, PatchEmbedder, str], Evaluation]] = {
    "photos": _on_photos,
    "brown": _on_brown,
    "hpatches": _on_hpatches,
    "sequences": on_sequences,
    "pairs": on_posed_pairs,
}
