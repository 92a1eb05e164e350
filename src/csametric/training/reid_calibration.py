"""Calibrate the verification of a re-identification model."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from csametric.data.records import Record, ReidDataset, hold_back
from csametric.errors import UserError
from csametric.evaluation.calibration import Calibration, calibrate_distances
from csametric.evaluation.verification_pairs import labelled_distances
from csametric.inference.engines import Engine
from csametric.runs.experiment import ReidData, ReidExperiment
from csametric.runs.stored_calibration import FMRS, StoredCalibration, StoredThreshold
from csametric.training.machine import Machine
from csametric.training.reid_scoring import embed_records

CURVE_POINTS = 60  # of the stored DET curve
LARGEST_FMR = 0.5


def calibrate_reid(
    engine: Engine, records: Sequence[Record], data: ReidData, machine: Machine, fitted_on: str, prior: float = 0.5
) -> StoredCalibration:
    """Learn thresholds and probabilities from labelled images; every process takes part.

    Args:
        engine: computes the features.
        records: images that the model was not trained on; junk and distractors are left out.
        data: the size of images.
        machine: the processes.
        fitted_on: what the images are, in words.
        prior: the probability of a genuine pair where the probabilities will be used, in (0, 1).

    Raises:
        UserError: too few identities, none of them with two images from different cameras, or a prior out of range.
    """
    people = [record for record in records if record.identity > 0]
    if len({record.identity for record in people}) < 2:
        raise UserError(f"calibration needs images of at least 2 identities, got {len(people)} images of fewer; add identities")
    features = embed_records(engine, people, data.height, data.width, machine)
    identities, cameras = [record.identity for record in people], [record.camera for record in people]
    labelled = labelled_distances(features, identities, cameras)
    calibration = calibrate_distances(*labelled, prior=prior)
    curve = _curve(calibration)
    return StoredCalibration(
        fitted_on=fitted_on,
        identities=len(np.unique(labelled.identities)),
        images=len(people),
        genuine=len(calibration.genuine),
        impostor=len(calibration.impostor),
        across_cameras=len(set(cameras)) > 1,
        prior=prior,
        eer=calibration.eer,
        thresholds=tuple(_stored(calibration, fmr) for fmr in FMRS if fmr >= _least_fmr(calibration)),
        det_fmr=tuple(curve),
        det_fnmr=tuple(calibration.fnmr(fmr) for fmr in curve),
        det_thresholds=tuple(calibration.threshold(fmr) for fmr in curve),
        knots=tuple(calibration.knots.tolist()),
        probabilities=tuple(calibration.probabilities.tolist()),
    )


def _least_fmr(calibration: Calibration) -> float:
    return 1 / min(calibration.identity_pairs, len(calibration.impostor))


def _curve(calibration: Calibration) -> list[float]:
    """False match rates from the smallest that can be measured up to `LARGEST_FMR`, spaced logarithmically."""
    least = _least_fmr(calibration)
    return np.geomspace(least, LARGEST_FMR, CURVE_POINTS).clip(least).tolist() if least < LARGEST_FMR else []


def _stored(calibration: Calibration, fmr: float) -> StoredThreshold:
    low, high = calibration.interval(fmr)
    return StoredThreshold(fmr=fmr, threshold=calibration.threshold(fmr), low=low, high=high, fnmr=calibration.fnmr(fmr))


Part = Literal["held back from training", "its query and gallery", "all its images"]


def records_for_calibration(experiment: ReidExperiment, dataset: ReidDataset, part: Part) -> Sequence[Record]:
    """Images of a dataset to calibrate a run on.

    Args:
        experiment: of the run.
        dataset: its own for identities held back or its query and gallery, another one for all its images.
        part: which images.

    Raises:
        UserError: no identity was held back.
    """
    if part == "held back from training":
        held_back = hold_back(dataset.train, experiment.data.calibration, experiment.seed).held_back
        if not held_back:
            raise UserError("no identity was held back from training; name the data to calibrate on")
        return held_back
    return [*(dataset.train if part == "all its images" else []), *dataset.query, *dataset.gallery]
