"""train, evaluate, convert, recipes: commands about runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import csametric
from csametric.cli.datasets import CameraPattern, Dimensions, Engine, Whiten
from csametric.cli.lazy import lazy_imports
from csametric.cli.tables import print_scores, print_table
from csametric.data.datasets import DESCRIPTOR_KINDS, READERS, read_dataset, split_data
from csametric.errors import UserError

with lazy_imports():
    import accelerate

    from csametric import recipes as recipes_by_name
    from csametric.inference import conversion, images, patches
    from csametric.reports import descriptor_evaluation, reid_evaluation, reid_report, run_report
    from csametric.runs import experiment as experiments
    from csametric.runs import overrides, stored_calibration
    from csametric.training import loop, reid_scoring
    from csametric.training import machine as machines

RUNS = Path("runs")
LONGEST_NAME = 200  # characters; file systems allow 255 bytes
PRINTED_QUERIES = 10  # without a match

IDENTITIES = f"For identities: {', '.join(READERS)}"
TrainingData = Annotated[
    str | None,
    typer.Option(
        "--data",
        help=f"{IDENTITIES}. For descriptors: photos, brown.",
        show_default="for descriptors, the photographs that come with scikit-image; for identities, none",
        metavar="KIND:PATH",
    ),
]
EvaluationData = Annotated[
    str | None,
    typer.Option(
        "--data",
        help=f"{IDENTITIES}. For descriptors: {', '.join(DESCRIPTOR_KINDS)}.",
        show_default="the run's own data",
        metavar="KIND:PATH",
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Random seed for initial weights, data order and augmentation.", show_default="0")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting, e.g. optimizer.lr=5; repeatable.", metavar="NAME=VALUE")
]


def train(
    recipe: Annotated[str, typer.Argument(help="A name that `csametric recipes` lists.")],
    data: TrainingData = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the run: its folder is runs/NAME.", show_default="the recipe's name")
    ] = None,
    seed: SeedOption = None,
    settings: SetOption = None,
) -> None:
    """Train a recipe, then score it and write a report, all into the folder runs/NAME.

    Give the same command again to resume after an interruption.

    Example: csametric train hardnet_csa --data photos:holiday --name holiday
    """
    experiment, assignments = _experiment_for(recipe, data)
    if seed is not None:
        assignments.append(f"seed={seed}")
    experiment = overrides.override(experiment, assignments + (settings or []))
    folder = _run_folder(experiment.recipe if name is None else name)
    loop.train(experiment, folder)
    if accelerate.PartialState().is_main_process:
        print_scores(f"Run {folder.name}", run_report.report_run(experiment, folder), folder / "report.html")


def _run_folder(name: str) -> Path:
    """The folder of a new run, below runs/.

    Raises:
        UserError: the name is empty, too long, or leads elsewhere.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name or max(map(len, parts)) > LONGEST_NAME:
        raise UserError(f"--name must be a name of at most {LONGEST_NAME} characters for a folder in {RUNS}/, got {name!r}")
    return RUNS / name


def _experiment_for(recipe: str, data: str | None) -> tuple[experiments.Experiment, list[str]]:
    """The experiment of a recipe and the settings that --data stands for; for Brown, those of brown_RECIPE."""
    experiment = recipes_by_name.find_recipe(recipe)
    if data is None:
        return experiment, []
    if isinstance(experiment, experiments.DescriptorExperiment) and data.startswith("brown:"):
        experiment = recipes_by_name.find_recipe(f"brown_{recipe}")
    if isinstance(experiment, experiments.PatchExperiment):
        return experiment, patch_assignments(data)
    return experiment, dataset_assignments(data)


def patch_assignments(data: str) -> list[str]:
    """The settings that --data stands for in a descriptor's experiment: photos:FOLDER or brown:ROOT.

    Examples:
        >>> patch_assignments("brown:/data/brown")
        ['data.root=/data/brown']
    """
    kind, path = split_data(data, ("photos", "brown"))
    return [f"data.{'root' if kind == 'brown' else 'folder'}={path}"]


def dataset_assignments(data: str) -> list[str]:
    """The settings that --data stands for in a re-identification experiment.

    Examples:
        >>> dataset_assignments("market1501:/data/market")
        ['data.kind=market1501', 'data.path=/data/market']
    """
    kind, path = split_data(data, READERS)
    return [f"data.kind={kind}", f"data.path={path}"]


def evaluate(
    run: Annotated[Path, typer.Argument(help="A folder that `train` wrote, e.g. runs/hardnet_csa.")],
    data: EvaluationData = None,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Re-rank by k-reciprocal neighbours first (re-identification).")
    ] = False,
    flip: Annotated[
        bool, typer.Option("--flip", help="Average the features of each image and its mirror image (re-identification).")
    ] = False,
    no_camera_filter: Annotated[
        bool,
        typer.Option(
            "--no-camera-filter", help="Keep gallery images of the query's identity from its own camera (re-identification)."
        ),
    ] = False,
    camera_pattern: CameraPattern = None,
    dimensions: Dimensions = None,
    whiten: Whiten = False,
    engine: Engine = "torch",
) -> None:
    """Score a finished run, by default on the data it was trained with.

    A descriptor is compared with SIFT and RootSIFT. A re-identification model can be scored on any dataset, including one that
    it was not trained on.

    Example: csametric evaluate runs/pcb_csa --data dukemtmc:/data/DukeMTMC-reID
    """
    model = csametric.load(run, engine=engine)
    if not isinstance(model, patches.PatchEmbedder):
        options = reid_scoring.EvaluationOptions(rerank=rerank, flip=flip, dimensions=dimensions, whiten=whiten)
        _evaluate_reid(run, model, _evaluated_data(model, data, no_camera_filter, camera_pattern), options)
        return
    if rerank or flip or no_camera_filter or camera_pattern or dimensions or whiten:
        raise UserError(
            f"--rerank, --flip, --no-camera-filter, --camera-pattern, --dimensions and --whiten are for re-identification, but "
            f"{run} is a descriptor; omit them"
        )
    evaluation = descriptor_evaluation.evaluate_descriptor(run, model, data)
    if evaluation.note:
        print(evaluation.note)
    print_table(evaluation.title, evaluation.table.header, evaluation.table.rows)


def _evaluated_data(
    model: images.ImageEmbedder, data: str | None, no_camera_filter: bool, camera_pattern: str | None
) -> experiments.ReidData:
    """The data that a run was trained on, with what the options change."""
    settings = model.experiment.data
    if data is not None:
        kind, path = split_data(data, READERS)
        settings = replace(settings, kind=kind, path=path)
    if no_camera_filter:
        settings = replace(settings, camera_filter=False)
    if camera_pattern is not None:
        settings = replace(settings, camera_pattern=camera_pattern)
    return settings


def _evaluate_reid(
    run: Path, model: images.ImageEmbedder, data: experiments.ReidData, options: reid_scoring.EvaluationOptions
) -> None:
    dataset = read_dataset(data.kind, data.path, data.camera_pattern)
    machine = machines.join_processes(model.experiment.precision)
    engine = model.to(machine.device).scoring_engine
    compact = None if options.dimensions is None else model.compact_for(options.dimensions)
    # thresholds are for the full features of plain images, computed with floating-point numbers
    thresholds = [] if options.flip or compact or engine.name == "onnxruntime-int8" else _stored_thresholds(run)
    scores = reid_scoring.score_dataset(
        engine, dataset, data, machine, options, [stored.threshold for stored in thresholds], compact
    )
    if not machine.is_main:
        return
    json_path, picture_path = reid_evaluation.write_evaluation(
        run,
        scores,
        data,
        options.names
        + ([] if data.camera_filter else ["no-camera-filter"])
        + ([] if engine.name == "torch" else [engine.name]),
    )
    table = reid_report.reid_table({run.resolve().name: scores})
    print(dataset)
    print_table(f"{run} on {dataset.name}", table.header, table.rows)
    if thresholds:
        _report_verification(run, dataset.name, thresholds, scores["verification"])
    for index in scores["queries_without_match"][:PRINTED_QUERIES]:
        print(f"no match in the gallery: {dataset.query[index].path}")
    print(f"{reid_report.conventions(scores)}\nwritten: {json_path} and {picture_path}")


def _stored_thresholds(run: Path) -> list[stored_calibration.StoredThreshold]:
    calibration = stored_calibration.read_calibration(run)
    return [] if calibration is None else list(calibration.thresholds)


def _report_verification(
    run: Path, name: str, thresholds: list[stored_calibration.StoredThreshold], rates: list[dict[str, float]]
) -> None:
    """Print what the stored thresholds give on this data, and record it in calibration.json for `verify`."""
    measured = tuple(
        stored_calibration.MeasuredRates(data=name, fmr=stored.fmr, measured_fmr=rate["fmr"], measured_fnmr=rate["fnmr"])
        for stored, rate in zip(thresholds, rates, strict=True)
    )
    stored_calibration.add_measured(run, measured)
    header = ["threshold for a false match rate of", "false match rate here", "false non-match rate here"]
    rows = [[f"{rate.fmr:g}", f"{rate.measured_fmr:.2g}", f"{rate.measured_fnmr:.3f}"] for rate in measured]
    print_table(f"Verification on {name}, all images of query and gallery", header, rows)


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A .pth file from HardNet's authors or from kornia.feature.HardNet.")],
    run: Annotated[Path, typer.Argument(help="The run folder to create, e.g. runs/hardnet_liberty.")],
) -> None:
    """Convert a HardNet checkpoint trained elsewhere into a run folder, to evaluate it and match photographs with it.

    Example: csametric convert checkpoint_liberty_with_aug.pth runs/hardnet_liberty
    """
    conversion.convert_hardnet(checkpoint, run)
    print(f"written: {run}")


def recipes() -> None:
    """List the recipes and what each one trains.

    Example: csametric recipes
    """
    print_table(
        "recipes", ["name", "what it trains"], [[name, _summary(recipe)] for name, recipe in recipes_by_name.RECIPES.items()]
    )
    print("Scores in the paper are rank-1/mAP in per cent on Market-1501, then on DukeMTMC-reID.")


def _summary(recipe: object) -> str:
    return (recipe.__doc__ or "").split("\n")[0]
