"""calibration.json: thresholds between stored rates, measured rates, damage."""

import json
from dataclasses import asdict

import pytest

from csametric.errors import UserError
from csametric.runs.stored_calibration import (
    CALIBRATION,
    MeasuredRates,
    StoredCalibration,
    StoredThreshold,
    add_measured,
    read_calibration,
    write_calibration,
)

CALIBRATED = StoredCalibration(
    fitted_on="80 images of 20 identities of people",
    identities=20,
    images=80,
    genuine=60,
    impostor=3000,
    across_cameras=True,
    prior=0.5,
    eer=0.1,
    thresholds=(StoredThreshold(fmr=1e-2, threshold=2.0, low=1.8, high=2.1, fnmr=0.3),),
    det_fmr=(0.005, 0.5),
    det_fnmr=(0.4, 0.0),
    det_thresholds=(1.0, 3.0),
    knots=(1.0, 2.0),
    probabilities=(1.0, 0.0),
)


def test_a_calibration_comes_back_as_it_was_written(tmp_path):
    assert read_calibration(tmp_path) is None
    write_calibration(tmp_path, CALIBRATED)
    assert read_calibration(tmp_path) == CALIBRATED


def test_thresholds_and_probabilities_between_stored_ones():
    assert CALIBRATED.threshold(1e-2) == 2.0  # not the curve's
    assert CALIBRATED.threshold(0.05) == pytest.approx(2.0)  # halfway on a logarithmic scale
    assert CALIBRATED.probability([0.0, 1.25, 9.0]).tolist() == [1.0, 0.75, 0.0]
    with pytest.raises(UserError, match=r"FMR 0\.001 needs a calibration on at least 46 identities, this one had 20"):
        CALIBRATED.threshold()
    with pytest.raises(UserError, match=r"fmr must be in \(0, 1\), got 0"):
        CALIBRATED.threshold(0)


def test_rates_measured_on_other_data_are_kept_and_the_worst_is_found(tmp_path):
    def rates(data: str, fmr: float) -> tuple[MeasuredRates, ...]:
        return (MeasuredRates(data=data, fmr=1e-2, measured_fmr=fmr, measured_fnmr=0.5),)

    add_measured(tmp_path, rates("market", 0.1))  # nothing to add it to
    assert read_calibration(tmp_path) is None
    write_calibration(tmp_path, CALIBRATED)
    for data, fmr in (("market", 0.2), ("duke", 0.05), ("market", 0.1)):
        add_measured(tmp_path, rates(data, fmr))
    calibration = read_calibration(tmp_path)
    assert calibration.measured == (*rates("duke", 0.05), *rates("market", 0.1))
    assert calibration.worst_measured(1e-2) == rates("market", 0.1)[0]
    assert calibration.worst_measured(1e-3) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"knots": [2.0, 1.0]},
        {"knots": []},
        {"probabilities": [float("nan"), 0.0]},
        {"probabilities": [2.0, 0.0]},
        {"det_fmr": [0.5]},
        {"eer": "high"},
        {"thresholds": [{"fmr": 0.01}]},
        {"thresholds": 7},
        {"unknown": 1},
        {"identities": None},
        {"genuine": "many"},
        {"fitted_on": 7},
    ],
)
def test_a_damaged_calibration_is_named(damage, tmp_path):
    (tmp_path / CALIBRATION).write_text(json.dumps(asdict(CALIBRATED) | damage))
    with pytest.raises(UserError, match=r"calibration\.json is damaged .*; remove it and calibrate again"):
        read_calibration(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "nul", "{", "[" * 100_000])
def test_text_that_is_no_calibration_is_named(content, tmp_path):
    (tmp_path / CALIBRATION).write_text(content)
    with pytest.raises(UserError, match=r"calibration\.json is damaged"):
        read_calibration(tmp_path)
