"""demo: train descriptors with and without attention on real photographs, and report them side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from csametric.cli.lazy import lazy_imports
from csametric.cli.tables import print_scores

with lazy_imports():
    import accelerate

    from csametric import recipes
    from csametric.reports import photo_report
    from csametric.runs import overrides
    from csametric.training import loop

TITLE = "Descriptors with and without compressed self-attention"
DEMO = Path("runs") / "demo"
ARMS = {"HardNet": "hardnet", "HardNet + CSA": "hardnet_csa"}
EXTRA_ARMS = {"sa": ("HardNet + SA", "hardnet_sa")}


def demo(
    extra: Annotated[
        Literal["sa"] | None, typer.Option("--with", help="sa: also train a variant with plain self-attention (slower).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of all runs.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a setting of every run, e.g. steps=50; repeatable.", metavar="NAME=VALUE"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder for the runs and report.html.")] = DEMO,
) -> None:
    """Train HardNet and HardNet + CSA on the bundled photographs, compare them with SIFT and write report.html.

    Example: csametric demo --with sa
    """
    arms = dict(ARMS)
    if extra:
        label, recipe = EXTRA_ARMS[extra]
        arms[label] = recipe
    runs = {}
    for label, recipe in arms.items():
        experiment = overrides.override(recipes.find_recipe(recipe), [f"seed={seed}", *(settings or [])])
        runs[label] = out / recipe
        loop.train(experiment, runs[label])
    if accelerate.PartialState().is_main_process:
        report = out / "report.html"
        print_scores(TITLE, photo_report.report_photos(TITLE, runs, report), report)
