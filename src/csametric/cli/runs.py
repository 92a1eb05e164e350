"""train, evaluate, recipes."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from accelerate import PartialState

from csametric.cli.datasets import split_data
from csametric.cli.tables import print_scores, print_table
from csametric.data.datasets import read_dataset
from csametric.errors import UserError
from csametric.files import replace_folder, write_text
from csametric.inference.images import ImageEmbedder
from csametric.inference.load import load
from csametric.inference.patches import PatchEmbedder, build_descriptor
from csametric.models.weights import from_hardnet, load_strictly, read_state
from csametric.recipes import RECIPES, find_recipe
from csametric.reports.attention_report import save_figure
from csametric.reports.descriptor_evaluation import evaluate_descriptor, folder_of
from csametric.reports.reid_report import conventions, ranked_picture, reid_table
from csametric.reports.run_report import report_run
from csametric.runs.experiment import BrownExperiment, DescriptorExperiment, Experiment, PatchExperiment
from csametric.runs.folder import BUNDLED_WEIGHTS, EXPERIMENT, WEIGHTS, save_weights, weights_of
from csametric.runs.overrides import override, to_json
from csametric.training.loop import train as train_experiment
from csametric.training.machine import join_processes
from csametric.training.reid_scoring import score_dataset

RUNS = Path("runs")

DataOption = Annotated[
    str | None,
    typer.Option("--data", help="photos:FOLDER, brown:ROOT, market1501:PATH, folder:PATH, csv:FILE, ...", metavar="KIND:PATH"),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="The seed of weights, order and views; by default the recipe's, 0.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting, e.g. optimizer.lr=5; repeatable.", metavar="NAME=VALUE")
]


def train(
    recipe: Annotated[str, typer.Argument(help="A name that `csametric recipes` lists.")],
    data: DataOption = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The run's folder under runs/; by default the recipe's name.")
    ] = None,
    seed: SeedOption = None,
    settings: SetOption = None,
) -> None:
    """Train a recipe into runs/NAME; the same command again goes on where a run was stopped.

    Example: csametric train hardnet_csa --data photos:holiday --name holiday
    """
    experiment, assignments = _chosen(recipe, data)
    assignments += [f"seed={seed}"] if seed is not None else []
    experiment = override(experiment, assignments + (settings or []))
    folder = RUNS / (name or experiment.recipe)
    train_experiment(experiment, folder)
    if PartialState().is_main_process:
        print_scores(f"Run {folder.name}", report_run(experiment, folder), folder / "report.html")


def _chosen(recipe: str, data: str | None) -> tuple[Experiment, list[str]]:
    """The experiment of a recipe, for a descriptor on Brown its brown_ twin, and what --data sets."""
    experiment = find_recipe(recipe)
    if data is None:
        return experiment, []
    if isinstance(experiment, DescriptorExperiment) and data.startswith("brown:"):
        experiment = find_recipe(f"brown_{recipe}")
    return experiment, (patch_assignments if isinstance(experiment, PatchExperiment) else dataset_assignments)(data)


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder, e.g. runs/hardnet_csa.")],
    data: DataOption = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="k-reciprocal re-ranking first (re-identification).")] = False,
    flip: Annotated[bool, typer.Option("--flip", help="Average features over the mirror image (re-identification).")] = False,
    no_camera_filter: Annotated[
        bool, typer.Option("--no-camera-filter", help="Keep gallery images of the query's camera (re-identification).")
    ] = False,
) -> None:
    """Score a finished run: descriptors beside SIFT and RootSIFT, people on any dataset, also one it was not trained on.

    Example: csametric evaluate runs/pcb_csa --data dukemtmc:/data/DukeMTMC-reID
    """
    model = load(run)
    if isinstance(model, PatchEmbedder):
        if rerank or flip or no_camera_filter:
            raise UserError("--rerank, --flip and --no-camera-filter are for people; descriptors are evaluated in one way")
        evaluation = evaluate_descriptor(run, model, data)
        print(evaluation.note, end="\n" if evaluation.note else "")
        print_table(evaluation.title, evaluation.table.header, evaluation.table.rows)
    else:
        _evaluate_reid(run, model, data, rerank, flip, not no_camera_filter)


def _evaluate_reid(run: Path, model: ImageEmbedder, data: str | None, rerank: bool, flip: bool, camera_filter: bool) -> None:

    trained = model.experiment.data
    kind, path = split_data(data) if data else (trained.kind, trained.path)
    settings = replace(trained, kind=kind, path=path, camera_filter=camera_filter and trained.camera_filter)
    dataset = read_dataset(kind, path)
    machine = join_processes(model.experiment.precision)
    scores = score_dataset(model.model.to(machine.device), dataset, settings, machine, flip, rerank)
    if not machine.is_main:
        return
    words = [dataset.name, *(["rerank"] if rerank else []), *(["flip"] if flip else [])]
    words += [] if camera_filter else ["no-camera-filter"]
    out = _evaluation_file(_evaluation_folder(run), "-".join(words).replace(" ", "-").lower(), path)
    written = {name: value for name, value in scores.items() if not isinstance(value, np.ndarray)}
    named = {"data": f"{kind}:{Path(path).name}", "path_digest": _path_digest(path)}  # no path of this machine
    write_text(Path(f"{out}.json"), json.dumps(written | named, indent=1))
    save_figure(ranked_picture(scores, settings), Path(f"{out}.png"))
    table = reid_table({run.resolve().name: scores})
    print(dataset)
    print_table(f"{run} on {dataset.name}", table.header, table.rows)
    for query in scores["queries_without_match"][:10]:
        print(f"no match in the gallery: {dataset.query[query].path}")
    print(f"{conventions(scores)}\nwritten: {out}.json and {out}.png")


def _evaluation_folder(run: Path) -> Path:
    """In the run; beside a bundle, which is handed on as it is."""
    is_bundle = weights_of(run).name == BUNDLED_WEIGHTS
    return run.resolve().with_name(f"{run.resolve().name}-evaluation") if is_bundle else run / "evaluation"


def _evaluation_file(folder: Path, name: str, path: str) -> str:
    """Without a suffix; another dataset of the same name gets a name with a digest of its path."""
    present = folder / f"{name}.json"
    taken = present.is_file() and json.loads(present.read_text()).get("path_digest") != _path_digest(path)
    return str(folder / (f"{name}-{_path_digest(path)}" if taken else name))


def _path_digest(path: str) -> str:

    return hashlib.sha256(os.fsencode(path)).hexdigest()[:6]


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A .pth of HardNet's authors or of kornia.feature.HardNet.")],
    run: Annotated[Path, typer.Argument(help="The run's folder to make, e.g. runs/hardnet_liberty.")],
) -> None:
    """Make a run of HardNet weights from elsewhere, to evaluate, embed and match with.

    Example: csametric convert checkpoint_liberty_with_aug.pth runs/hardnet_liberty
    """
    if run.exists():
        raise UserError(f"{run} is already there; name another folder")
    experiment = BrownExperiment(recipe="brown_hardnet")
    model = build_descriptor(experiment.model)
    load_strictly(model, from_hardnet(read_state(checkpoint)), checkpoint)
    with replace_folder(run) as new:
        save_weights(new / WEIGHTS, model)
        write_text(new / EXPERIMENT, to_json(experiment))
    print(f"made: {run}")


def recipes() -> None:
    """List the recipes with what they train.

    Example: csametric recipes
    """
    print_table("recipes", ["name", "what it trains"], [[name, _summary(recipe)] for name, recipe in RECIPES.items()])


def patch_assignments(data: str) -> list[str]:
    """What --data sets for a descriptor: photos:FOLDER or brown:ROOT."""
    kind, path = folder_of(data, ("photos", "brown"))
    return [f"data.{'root' if kind == 'brown' else 'folder'}={path}"]


def dataset_assignments(data: str) -> list[str]:
    """What --data sets for a model of re-identification."""
    kind, path = split_data(data)
    return [f"data.kind={kind}", f"data.path={path}"]


def _summary(recipe: object) -> str:
    return (recipe.__doc__ or "").split("\n")[0]
