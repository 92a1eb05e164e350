"""train, evaluate, recipes."""

from pathlib import Path
from typing import Annotated

import typer

RUNS = Path("runs")

DataOption = Annotated[
    str | None, typer.Option("--data", help="photos:FOLDER trains on your own photographs.", metavar="photos:FOLDER")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="The seed of weights, order and views.")]
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
    from csametric.cli.reports import report_runs
    from csametric.recipes import find_recipe
    from csametric.training.experiment import override
    from csametric.training.loop import train as train_experiment

    assignments = [f"data.folder={photo_folder(data)}"] if data else []
    assignments += [f"seed={seed}"] if seed is not None else []
    experiment = override(find_recipe(recipe), assignments + (settings or []))
    folder = RUNS / (name or recipe)
    train_experiment(experiment, folder)
    report_runs(f"Run {folder.name}", {recipe: folder}, folder / "report.html")


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder, e.g. runs/hardnet_csa.")],
    data: DataOption = None,
) -> None:
    """Score a finished run on held-out photographs and the stereo pair, beside SIFT and RootSIFT.

    Example: csametric evaluate runs/hardnet_csa --data photos:holiday
    """
    from dataclasses import replace

    from csametric.cli.reports import baseline_scores, score_table
    from csametric.cli.tables import print_table
    from csametric.data.photos import open_photo_patches
    from csametric.inference import load
    from csametric.training.progress import photo_progress
    from csametric.training.validation import check_held_out, score

    model = load(run)
    photos = replace(model.experiment.data, folder=photo_folder(data)) if data else model.experiment.data
    with photo_progress(enabled=True) as progress:
        patches = open_photo_patches(photos, progress=progress)
    check_held_out(patches)
    print(patches.summary)
    table = score_table({**baseline_scores(patches), run.name: score(model.describe, patches)})
    print_table(f"{run} on {photos.folder}", table.header, table.rows)


def recipes() -> None:
    """List the recipes, one a line.

    Example: csametric recipes
    """
    from csametric.cli.tables import print_table
    from csametric.recipes import RECIPES

    print_table("recipes", ["name", "what it trains"], [[name, _summary(recipe)] for name, recipe in RECIPES.items()])


def photo_folder(data: str) -> str:
    """The folder of "photos:FOLDER"."""
    from csametric.errors import UserError

    kind, _, folder = data.partition(":")
    if kind != "photos" or not folder:
        raise UserError(f"--data {data} is unknown; write photos:FOLDER")
    return str(Path(folder).expanduser().resolve())


def _summary(recipe: object) -> str:
    return (recipe.__doc__ or "").split("\n")[0]
