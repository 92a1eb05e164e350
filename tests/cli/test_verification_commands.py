"""calibrate and verify from the command line, on generated people."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csametric import load
from csametric.inference.bundle import write_bundle
from csametric.reports.run_report import report_run
from csametric.runs.folder import read_experiment
from csametric.runs.stored_calibration import read_calibration
from tests.cli.test_cli import csametric
from tests.data import people
from tests.training import tiny_reid

SMALL = [argument for setting in tiny_reid.SETTINGS for argument in ("--set", setting)]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, cache) -> tuple[Path, str]:
    """A folder with a run that held identities back, and what `calibrate` on other people printed."""
    folder = tmp_path_factory.mktemp("work")
    people.write_folders(folder / "people")
    for identity in range(100, 116):
        for camera in (1, 2):
            (folder / f"others/{identity}").mkdir(parents=True, exist_ok=True)
            for number in range(2):
                people.person(identity, camera, number).save(folder / f"others/{identity}/c{camera}_{number}.png")
    settings = [*SMALL, "--set", "data.calibration=0.4", "--set", "epochs=2", "--set", "batch_size=8"]
    trained = csametric("train", "pcb_csa", "--data", "folder:people", "--name", "mine", *settings, cwd=folder, cache=cache)
    assert trained.returncode == 0, trained.stderr
    assert "held back from training, to calibrate verification: 24 images of 3 identities" in trained.stdout + trained.stderr
    done = csametric("calibrate", "runs/mine", "--data", "folder:others", cwd=folder, cache=cache)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_held_back_identities_are_named_and_not_trained_on(calibrated):
    folder, _ = calibrated
    data = json.loads((folder / "runs/mine/environment.json").read_text())["data"]
    assert (data["train"], data["identities"], len(data["calibration"])) == (40, 5, 3)
    assert load(folder / "runs/mine").model.classifiers[0].out_features == 5


def test_calibrate_prints_thresholds_with_intervals_and_what_is_left_out(calibrated):
    folder, printed = calibrated
    stored = read_calibration(folder / "runs/mine")
    assert (stored.identities, stored.images, stored.across_cameras) == (16, 64, True)
    assert [threshold.fmr for threshold in stored.thresholds] == [0.01]
    assert stored.thresholds[0].low <= stored.thresholds[0].threshold <= stored.thresholds[0].high
    assert (
        "calibrated on 64 images of 16 identities of others, all its images: 64 genuine pairs (from different cameras)"
        in printed
    )
    assert "FMR 0.001 needs a calibration on at least 46 identities, this one had 16" in printed


def test_verify_says_the_verdict_and_what_it_rests_on(calibrated, called_here):
    folder, _ = calibrated
    same, other = ["others/100/c1_0.png", "others/100/c2_0.png"], "others/101/c1_0.png"
    done = called_here("verify", "runs/mine", *same, "--fmr", "0.1", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("same, distance ", "different, distance "))
    assert "calibrated on 64 images of 16 identities of others" in done.stdout
    answer = json.loads(called_here("verify", "runs/mine", *same, other, "--fmr", "0.1", "--json", cwd=folder).stdout)
    assert np.shape(answer["distances"]) == np.shape(answer["same"]) == (3, 3)
    model = load(folder / "runs/mine")
    assert answer["probabilities"][0][1] == pytest.approx(model.same(*(folder / path for path in same)), abs=1e-5)
    assert answer["same"][0][1] == (answer["distances"][0][1] <= model.threshold(0.1))
    with Image.open(folder / other) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert model.same(folder / same[0], pixels) == pytest.approx(answer["probabilities"][0][2], abs=1e-5)


def test_evaluate_measures_the_rates_of_the_thresholds_and_verify_repeats_the_worst(calibrated, called_here):
    folder, _ = calibrated
    done = called_here("evaluate", "runs/mine", "--data", "folder:people", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Verification on people, all images of query and gallery" in done.stdout
    (measured,) = read_calibration(folder / "runs/mine").measured
    assert (measured.data, measured.fmr) == ("people", 0.01)
    verified = called_here("verify", "runs/mine", "others/100/c1_0.png", "others/100/c2_0.png", "--fmr", "0.01", cwd=folder)
    repeated = f"on people this threshold gave a false match rate of {measured.measured_fmr:.2g}, not 0.01" in verified.stdout
    assert repeated == (measured.measured_fmr > 0.01)


def test_the_report_shows_thresholds_and_compact_features(calibrated):
    folder, _ = calibrated
    experiment = read_experiment(folder / "runs/mine")
    report_run(experiment, folder / "runs/mine")
    page = (folder / "runs/mine/report.html").read_text()
    assert "Verification by pcb_csa" in page
    assert "False non-match rate against false match rate" in page
    assert "Compact features of pcb_csa" in page


def test_a_bundle_takes_the_calibration_with_it(calibrated, tmp_path):
    folder, _ = calibrated
    write_bundle(folder / "runs/mine", tmp_path / "bundle", onnx=False)
    assert read_calibration(tmp_path / "bundle") == read_calibration(folder / "runs/mine")
    assert load(tmp_path / "bundle").threshold(0.1) == load(folder / "runs/mine").threshold(0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "runs/mine", "others/100/c1_0.png"], "needs at least two images"),
        (["verify", "runs/mine", "others/100/c1_0.png", "nowhere.png", "--fmr", "0.1"], "nowhere.png does not exist"),
        (["verify", "runs/mine", "others/100/c1_0.png", "others/100/c2_0.png"], "FMR 0.001 needs a calibration on at least 46"),
        (["calibrate", "runs/mine", "--data", "folder:others", "--prior", "1"], "prior must be in (0, 1), got 1.0"),
        (["calibrate", "nowhere"], "is not a run"),
    ],
)
def test_mistakes_are_one_sentence(calibrated, called_here, arguments, message):
    folder, _ = calibrated
    done = called_here(*arguments, cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_without_calibration_says_so(calibrated, called_here):
    folder, _ = calibrated
    plain = folder / "runs/plain"
    plain.mkdir()
    for name in ("experiment.json", "weights.safetensors"):
        (plain / name).write_bytes((folder / "runs/mine" / name).read_bytes())
    done = called_here("verify", "runs/plain", "others/100/c1_0.png", "others/100/c2_0.png", cwd=folder)
    assert done.returncode == 2
    assert "is not calibrated; calibrate the run first with `csametric calibrate`" in done.stderr


def test_compact_features_are_fitted_stored_and_used(calibrated, called_here):
    folder, _ = calibrated
    scores = json.loads((folder / "runs/mine/scores.json").read_text())
    assert [row["dimensions"] for row in scores["compact"]][-1] == load(folder / "runs/mine").model.dimensions
    assert scores["compact"][-1]["map_step"] == pytest.approx(scores["map_step"])
    done = called_here("embed", "runs/mine", "others", "--out", "x.npy", "--dimensions", "16", "--fp16", cwd=folder)
    assert done.returncode == 0, done.stderr
    features = np.load(folder / "x.npy")
    assert (features.shape, features.dtype) == ((64, 16), np.float16)
    model = load(folder / "runs/mine")
    names = [folder / "others" / name for name in (folder / "x.txt").read_text().splitlines()]
    np.testing.assert_allclose(features, model.embed(names, dimensions=16).numpy(), atol=2e-3)
    done = called_here("evaluate", "runs/mine", "--dimensions", "16", "--whiten", cwd=folder)
    assert "compact features of 16 dimensions, whitened" in done.stdout
    assert (folder / "runs/mine/evaluation/people-whiten-16.json").is_file()
    done = called_here("embed", "runs/mine", "others", "--out", "x.npy", "--dimensions", "1000", cwd=folder)
    assert "dimensions must be from 1 to 39, the number of components fitted, got 1,000" in done.stderr
