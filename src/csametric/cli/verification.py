"""calibrate, verify: do two images show the same identity?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, SupportsFloat

import typer

import csametric
from csametric.cli.datasets import CameraPattern
from csametric.cli.lazy import lazy_imports
from csametric.cli.tables import print_table
from csametric.data.datasets import READERS, split_data
from csametric.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from csametric.inference.engines import EngineName

with lazy_imports():
    from csametric import distances as metrics
    from csametric.data import datasets
    from csametric.data import records as dataset_records
    from csametric.inference import images
    from csametric.reports import reid_report
    from csametric.runs import stored_calibration
    from csametric.training import machine as machines
    from csametric.training import reid_calibration


def calibrate(
    run: Annotated[Path, typer.Argument(help="A re-identification run or bundle, e.g. runs/mine.")],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help=f"Labelled images: {', '.join(READERS)}; of the run's own dataset, query and gallery are used.",
            show_default="the identities that training held back",
            metavar="KIND:PATH",
        ),
    ] = None,
    prior: Annotated[
        float, typer.Option("--prior", help="Share of pairs of the same identity that the probabilities assume.")
    ] = 0.5,
    camera_pattern: CameraPattern = None,
) -> None:
    """Learn from labelled images up to which distance two images show the same identity; write calibration.json into the run.

    `train` does this by itself if the recipe holds identities back (data.calibration). Genuine pairs are from different cameras
    where there are several.

    Example: csametric calibrate runs/pcb_csa --data folder:people
    """
    model = load_reid_model(run)
    settings = model.experiment.data
    own_path = str(Path(settings.path).expanduser().resolve())
    kind, path = (settings.kind, own_path) if data is None else split_data(data, READERS)
    is_own = (kind, path) == (settings.kind, own_path)
    dataset = datasets.read_dataset(kind, path, camera_pattern or (settings.camera_pattern if is_own else ""))
    other: reid_calibration.Part = "its query and gallery" if is_own else "all its images"
    part = other if data is not None else "held back from training"
    records = reid_calibration.records_for_calibration(model.experiment, dataset, part)
    machine = machines.join_processes(model.experiment.precision)
    fitted_on = f"{dataset_records.count(records)} of {dataset.name}, {part}"
    calibration = reid_calibration.calibrate_reid(
        model.to(machine.device).scoring_engine, records, settings, machine, fitted_on, prior
    )
    if machine.is_main:
        stored_calibration.write_calibration(run, calibration)
        print_calibration(calibration)
        print(f"written: {run / stored_calibration.CALIBRATION}")


def print_calibration(calibration: stored_calibration.StoredCalibration) -> None:
    """Print the thresholds of a calibration, and what they rest on."""
    table = reid_report.thresholds_table(calibration)
    print_table("Verification", table.header, table.rows)
    where = "from different cameras" if calibration.across_cameras else "single camera, or cameras unknown"
    print(
        f"calibrated on {calibration.fitted_on}: "
        f"{calibration.genuine:,} genuine pairs ({where}), {calibration.impostor:,} impostor pairs"
    )
    print(f"equal error rate {100 * calibration.eer:.2f} %")
    left_out = [fmr for fmr in stored_calibration.FMRS if fmr not in {stored.fmr for stored in calibration.thresholds}]
    for fmr in left_out:
        try:
            calibration.threshold(fmr)
        except UserError as error:
            print(f"left out: {error}")


def verify(
    run: Annotated[Path, typer.Argument(help="A calibrated re-identification run or bundle, e.g. runs/mine.")],
    files: Annotated[list[Path], typer.Argument(help="Two or more image files.", metavar="IMAGE IMAGE...")],
    fmr: Annotated[
        float, typer.Option("--fmr", help="Largest share of pairs of different identities that may be accepted as the same.")
    ] = 1e-3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Say whether images show the same identity: distance, probability, and a verdict for a given false match rate.

    Example: csametric verify runs/mine anna1.jpg anna2.jpg
    """
    model = load_reid_model(run)
    if len(files) < 2:
        raise UserError("verify needs at least two images; name another one")
    calibration, threshold = model.calibration, model.threshold(fmr)
    features = model.embed(files)
    distances = metrics.euclidean_distances(features, features).fill_diagonal_(0)
    probabilities = calibration.probability(distances)
    worst = calibration.worst_measured(fmr)
    if as_json:
        answer: dict[str, Any] = {
            "images": [str(path) for path in files],
            "distances": distances.tolist(),
            "probabilities": probabilities.tolist(),
            "same": (distances <= threshold).tolist(),
            "fmr": fmr,
            "threshold": threshold,
            "prior": calibration.prior,
            "calibrated_on": calibration.fitted_on,
            "worst_measured_fmr": None if worst is None else {"data": worst.data, "fmr": worst.measured_fmr},
        }
        print(json.dumps(answer, indent=1))
        return
    if len(files) == 2:
        print(_verdict(distances[0, 1], probabilities[0, 1], threshold, ", "))
    else:
        _print_matrix([path.name for path in files], distances, probabilities, threshold)
    print(
        f"same: a distance up to {threshold:.4f}, at a false match rate of {fmr:g}; probabilities assume that "
        f"{100 * calibration.prior:g} % of pairs show one identity\ncalibrated on {calibration.fitted_on}"
    )
    if worst is not None and worst.measured_fmr > fmr:
        print(f"on {worst.data} this threshold gave a false match rate of {worst.measured_fmr:.2g}, not {fmr:g}")


def _print_matrix(names: list[str], distances: Tensor, probabilities: NDArray, threshold: float) -> None:
    rows = [
        [name, *("" if i == j else _verdict(distances[i, j], probabilities[i, j], threshold, "\n") for j in range(len(names)))]
        for i, name in enumerate(names)
    ]
    print_table("verdict, distance, probability", ["", *names], rows)


def _verdict(distance: SupportsFloat, probability: SupportsFloat, threshold: float, separator: str) -> str:
    verdict = "same" if float(distance) <= threshold else "different"
    return separator.join([verdict, f"distance {float(distance):.4f}", f"probability {float(probability):.3f}"])


def load_reid_model(run: Path, engine: EngineName = "torch") -> images.ImageEmbedder:
    """Load a re-identification run or bundle.

    Raises:
        UserError: it is a descriptor, or not a run.
    """
    model = csametric.load(run, engine=engine)
    if not isinstance(model, images.ImageEmbedder):
        raise UserError(f"{run} is a descriptor; name a re-identification run")
    return model
