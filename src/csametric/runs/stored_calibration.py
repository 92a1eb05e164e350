"""calibration.json: what the distances of a run or bundle mean for verification.

Terms are those of ISO/IEC 19795-1: FMR is the share of impostor pairs taken for one identity, FNMR the share of genuine pairs
taken for two.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csametric.errors import UserError
from csametric.files import lock_folder, write_text

CALIBRATION = "calibration.json"
FMRS = (1e-2, 1e-3, 1e-4)  # whose thresholds are stored with an interval


@dataclass(frozen=True, kw_only=True)
class StoredThreshold:
    """The decision threshold for a false match rate."""

    fmr: float
    threshold: float  # distances up to it mean "same"
    low: float  # of the 95 % interval of the threshold
    high: float
    fnmr: float


@dataclass(frozen=True, kw_only=True)
class MeasuredRates:
    """What the threshold for `fmr` really gave on labelled images."""

    data: str
    fmr: float  # that the threshold was chosen for
    measured_fmr: float
    measured_fnmr: float


@dataclass(frozen=True, kw_only=True)
class StoredCalibration:
    """Thresholds and probabilities of a model."""

    fitted_on: str  # in words
    identities: int
    images: int
    genuine: int  # pairs
    impostor: int
    across_cameras: bool  # whether genuine pairs are from different cameras
    prior: float  # of a genuine pair, which `probability` assumes
    eer: float
    thresholds: tuple[StoredThreshold, ...]  # of those of `FMRS` that the data can tell
    det_fmr: tuple[float, ...]  # the DET curve, ascending
    det_fnmr: tuple[float, ...]
    det_thresholds: tuple[float, ...]
    knots: tuple[float, ...]  # distances at which the probability is known, ascending
    probabilities: tuple[float, ...]  # falling
    measured: tuple[MeasuredRates, ...] = ()

    def threshold(self, fmr: float = 1e-3) -> float:
        """The distance up to which two images are taken for one identity, at a false match rate.

        Raises:
            UserError: a rate outside (0, 1), or one that needs more identities than the calibration had.
        """
        if not 0 < fmr < 1:
            raise UserError(f"fmr must be in (0, 1), got {fmr}")
        for stored in self.thresholds:
            if math.isclose(stored.fmr, fmr):
                return stored.threshold
        if not self.det_fmr or fmr < self.det_fmr[0] * (1 - 1e-9):
            needed = math.ceil((1 + math.sqrt(1 + 8 / fmr)) / 2)
            raise UserError(
                f"FMR {fmr:g} needs a calibration on at least {needed:,} identities, this one had {self.identities:,}; "
                "calibrate on more, or use a larger FMR"
            )
        return float(np.interp(math.log(fmr), np.log(self.det_fmr), self.det_thresholds))

    def probability(self, distances: ArrayLike) -> NDArray:
        """The probability that pairs at these distances show one identity, in [0, 1]."""
        return np.interp(np.asarray(distances, np.float64), self.knots, self.probabilities)

    def worst_measured(self, fmr: float) -> MeasuredRates | None:
        """The largest false match rate that was measured at the threshold for `fmr`; None if it was never measured."""
        rates = [rates for rates in self.measured if math.isclose(rates.fmr, fmr)]
        return max(rates, key=lambda rates: rates.measured_fmr, default=None)


def write_calibration(folder: Path, calibration: StoredCalibration) -> None:
    """Write calibration.json into a run or bundle, atomically."""
    write_text(folder / CALIBRATION, json.dumps(asdict(calibration), indent=1))


def add_measured(folder: Path, measured: tuple[MeasuredRates, ...]) -> None:
    """Record measured rates in calibration.json; those measured before on the same data are replaced."""
    with lock_folder(folder, wait=True):
        calibration = read_calibration(folder)
        if calibration is None:
            return
        names = {rates.data for rates in measured}
        kept = tuple(rates for rates in calibration.measured if rates.data not in names)
        write_calibration(folder, replace(calibration, measured=kept + measured))


def read_calibration(folder: Path) -> StoredCalibration | None:
    """The calibration of a run or bundle; None if it has none.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / CALIBRATION
    if not path.is_file():
        return None
    try:
        return _from_values(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it and calibrate again") from error


def _from_values(values: dict[str, Any]) -> StoredCalibration:
    curves = {
        name: tuple(float(value) for value in values[name])
        for name in ("det_fmr", "det_fnmr", "det_thresholds", "knots", "probabilities")
    }
    thresholds = tuple(StoredThreshold(**stored) for stored in values["thresholds"])
    measured = tuple(MeasuredRates(**rates) for rates in values.get("measured", ()))
    calibration = StoredCalibration(**(values | curves | {"thresholds": thresholds, "measured": measured}))
    _check(calibration)
    return calibration


def _check(calibration: StoredCalibration) -> None:
    """Raise `ValueError` for values that no calibration has."""
    kinds = {"fitted_on": str, "across_cameras": bool} | dict.fromkeys(("identities", "images", "genuine", "impostor"), int)
    for name, kind in kinds.items():
        if not isinstance(getattr(calibration, name), kind):
            raise ValueError(f"{name} is {getattr(calibration, name)!r}")
    if not all(isinstance(rates.data, str) for rates in calibration.measured):
        raise ValueError("a measured rate does not name its data")
    numbers = [calibration.prior, calibration.eer]
    for stored in calibration.thresholds:
        numbers += [stored.fmr, stored.threshold, stored.low, stored.high, stored.fnmr]
    for rates in calibration.measured:
        numbers += [rates.fmr, rates.measured_fmr, rates.measured_fnmr]
    numbers += [*calibration.det_fmr, *calibration.det_fnmr, *calibration.det_thresholds]
    numbers += [*calibration.knots, *calibration.probabilities]
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("a number is NaN or infinite")
    if not len(calibration.det_fmr) == len(calibration.det_fnmr) == len(calibration.det_thresholds):
        raise ValueError("the parts of the DET curve differ in length")
    if not 0 < len(calibration.knots) == len(calibration.probabilities):
        raise ValueError("the probability curve is empty or its parts differ in length")
    if any(np.diff(calibration.knots) < 0) or any(np.diff(calibration.det_fmr) < 0):
        raise ValueError("a curve does not ascend")
    if not 0 <= min(calibration.probabilities) <= max(calibration.probabilities) <= 1:
        raise ValueError("a probability is outside [0, 1]")
