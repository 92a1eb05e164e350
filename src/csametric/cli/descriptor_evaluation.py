"""evaluate, for local descriptors, on each kind of data."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from csametric.cli.brown_reports import brown_table
from csametric.cli.hpatches import score_describe
from csametric.cli.matching_evaluation import on_posed_pairs, on_sequences
from csametric.cli.reports import baseline_scores, photo_settings, score_table
from csametric.cli.tables import print_table
from csametric.data.brown import SUBSETS, BrownSettings
from csametric.data.photos import open_photo_patches
from csametric.errors import UserError
from csametric.inference import PatchEmbedder
from csametric.training.brown_pairs import brown_scores, open_brown_tests
from csametric.training.experiment import BrownExperiment
from csametric.training.progress import data_progress
from csametric.training.validation import check_held_out, score

PATHS = {"photos": "FOLDER", "brown": "ROOT", "hpatches": "ROOT", "sequences": "FOLDER", "pairs": "FILE"}


def evaluate_descriptor(run: Path, model: PatchEmbedder, data: str | None) -> None:
    """Score a descriptor on KIND:PATH, by default on what it was trained with, and print the table.

    Raises:
        UserError: an unknown kind, or data that cannot be used.
    """
    kind, path = _trained_on(model) if data is None else folder_of(data, EVALUATIONS)
    EVALUATIONS[kind](run, model, path)


def _trained_on(model: PatchEmbedder) -> tuple[str, str]:
    experiment = model.experiment
    return (
        ("brown", experiment.data.root) if isinstance(experiment, BrownExperiment) else ("photos", photo_settings(model).folder)
    )


def folder_of(data: str, kinds: Collection[str]) -> tuple[str, str]:
    """The kind and the whole path of KIND:PATH.

    Raises:
        UserError: another kind, or no path.
    """
    kind, _, path = data.partition(":")
    if kind not in kinds or not path:
        raise UserError(f"--data {data} is unknown; write {' or '.join(f'{kind}:{PATHS[kind]}' for kind in kinds)}")
    return kind, str(Path(path).expanduser().resolve())


def _on_photos(run: Path, model: PatchEmbedder, folder: str) -> None:
    photos = replace(photo_settings(model), folder=folder)
    with data_progress(True, "cutting patches", "photographs") as progress:
        patches = open_photo_patches(photos, progress=progress)
    check_held_out(patches)
    print(patches.summary)
    table = score_table({**baseline_scores(patches), run.resolve().name: score(model.describe, patches)})
    print_table(f"{run} on {photos.folder}", table.header, table.rows)


def _on_brown(run: Path, model: PatchEmbedder, root: str) -> None:
    settings, names = BrownSettings(), list(SUBSETS)
    if isinstance(model.experiment, BrownExperiment):
        settings = model.experiment.data
        names.remove(settings.train)
    with data_progress(True, "cutting patches", "sheets") as progress:
        tests = open_brown_tests(replace(settings, root=root), names, None, progress)
    table = brown_table({run.resolve().name: brown_scores(model.describe, tests)})
    print_table(f"{run} on {root}", table.header, table.rows)


def _on_hpatches(run: Path, model: PatchEmbedder, root: str) -> None:
    score_describe(run.resolve().name, model.describe, Path(root))


EVALUATIONS: dict[str, Callable[[Path, PatchEmbedder, str], None]] = {
    "photos": _on_photos,
    "brown": _on_brown,
    "hpatches": _on_hpatches,
    "sequences": on_sequences,
    "pairs": on_posed_pairs,
}
