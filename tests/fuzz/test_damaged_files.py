"""Every file that a user brings may be damaged in any way: it is read, or one sentence says what is wrong with it."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from csametric import load
from csametric.data.brown import read_points, read_test_pairs
from csametric.data.datasets import read_dataset
from csametric.data.decoding import decode_colours, decode_grey
from csametric.data.hpatches import read_descriptors, read_task
from csametric.data.known_geometry import read_posed_pairs, read_sequences
from csametric.errors import UserError
from csametric.inference.compact import COMPACT, read_compact
from csametric.matching.photographs import read_pairs
from csametric.models.weights import read_state
from csametric.reports.run_report import report_run
from csametric.runs.folder import read_environment, read_experiment, read_metrics, read_scores, read_scores_by_query
from csametric.runs.stored_calibration import CALIBRATION, read_calibration, write_calibration
from csametric.training import loop
from csametric.training.checkpoint import load_checkpoint
from csametric.training.optimizer import reid_optimizer
from tests.data import brown_folder, hpatches_folder, people
from tests.fuzz.mutations import damage
from tests.runs.test_stored_calibration import CALIBRATED
from tests.training import tiny_reid

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of half-read files
SECONDS = 15  # of the reduced fuzzer, over all targets
FULL, FULL_SLOW = 150, 30  # damaged versions of each file in the whole one, and of files that a whole report is made of


@dataclass(frozen=True, kw_only=True)
class Target:
    """A file, and what reads it."""

    path: Path
    read: Callable[[], object]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzed")
    market = people.write_market(folder / "market")
    loop.train(tiny_reid.experiment("market1501", market, "epochs=1"), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def targets(tmp_path_factory, trained) -> dict[str, Target]:
    root = tmp_path_factory.mktemp("files")
    return text_targets(root) | image_targets(root) | run_targets(trained)


def text_targets(root: Path) -> dict[str, Target]:
    manifest = people.write_manifest(root / "manifest")
    msmt17 = people.write_msmt17(root / "msmt17")
    brown_folder.write_subset(root / "brown", points=40, pairs=60)
    points = read_points(root / "brown")
    (root / "descriptors").mkdir()
    for kind in hpatches_folder.PATCH_KINDS:
        np.savetxt(root / "descriptors" / f"{kind}.csv", np.random.default_rng(0).normal(size=(5, 8)), delimiter=",")
    (root / "retr_queries_split-a.csv").write_text("s,idx\n" + "".join(f"v_a,{index}\n" for index in range(9)))
    sequence = root / "sequences" / "v_a"
    sequence.mkdir(parents=True)
    for number in (1, 2):
        Image.new("L", (8, 8)).save(sequence / f"{number}.png")
    (sequence / "H_1_2").write_text("1 0 3\n0 1 4\n0 0 1\n")
    (root / "pairs.txt").write_text('a.png b.png\n"c d.png", e.png\n# comment\n')
    numbers = " ".join(map(str, range(34)))
    (root / "posed.txt").write_text(f"a.jpg b.jpg 0 1 {numbers}\nc.jpg d.jpg 0 0 {numbers}\n")
    pairs_file = next((root / "brown").glob("m50*"))
    return {
        "manifest": Target(path=manifest, read=lambda: read_dataset("csv", manifest)),
        "MSMT17's list": Target(path=msmt17 / "list_query.txt", read=lambda: read_dataset("msmt17", msmt17)),
        "Brown's info.txt": Target(path=root / "brown" / "info.txt", read=lambda: read_points(root / "brown")),
        "Brown's pairs": Target(path=pairs_file, read=lambda: read_test_pairs(root / "brown", points, pairs_file.name)),
        "HPatches' descriptors": Target(
            path=root / "descriptors" / "e1.csv", read=lambda: read_descriptors(root / "descriptors")
        ),
        "HPatches' task": Target(
            path=root / "retr_queries_split-a.csv", read=lambda: read_task(root / "retr_queries_split-a.csv", ["v_a"])
        ),
        "homography": Target(path=sequence / "H_1_2", read=lambda: read_sequences(root / "sequences")),
        "pairs of photographs": Target(path=root / "pairs.txt", read=lambda: read_pairs(root / "pairs.txt")),
        "posed pairs": Target(path=root / "posed.txt", read=lambda: read_posed_pairs(root / "posed.txt")),
    }


def image_targets(root: Path) -> dict[str, Target]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    found = {}
    for kind in ("png", "jpg", "tif", "gif", "bmp", "ppm", "webp"):
        path = root / f"image.{kind}"
        Image.fromarray(pixels).save(path)
        found[f"{kind} in colour"] = Target(path=path, read=lambda path=path: decode_colours(path))
        found[f"{kind} in grey"] = Target(path=path, read=lambda path=path: decode_grey(path, 16))
    torch.save({"state_dict": {"a": torch.ones(3)}}, root / "weights.pth")
    found["foreign weights"] = Target(path=root / "weights.pth", read=lambda: read_state(root / "weights.pth"))
    return found


def run_targets(run: Path) -> dict[str, Target]:
    experiment = read_experiment(run)
    model = load(run).model
    write_calibration(run, CALIBRATED)

    def resume() -> None:
        load_checkpoint(run, model, reid_optimizer(model, experiment.optimizer, pretrained=False))

    def report() -> None:
        report_run(experiment, run)

    return {
        "experiment.json": Target(path=run / "experiment.json", read=lambda: read_experiment(run)),
        "environment.json": Target(path=run / "environment.json", read=lambda: read_environment(run)),
        "metrics.jsonl": Target(path=run / "metrics.jsonl", read=lambda: read_metrics(run)),
        "scores.json": Target(path=run / "scores.json", read=lambda: read_scores(run)),
        "scores.json in the report": Target(path=run / "scores.json", read=report),
        "environment.json in the report": Target(path=run / "environment.json", read=report),
        "metrics.jsonl in the report": Target(path=run / "metrics.jsonl", read=report),
        "scores.npz": Target(path=run / "scores.npz", read=lambda: read_scores_by_query(run)),
        "checkpoint.pt": Target(path=run / "state" / "checkpoint.pt", read=resume),
        "weights.safetensors": Target(path=run / "weights.safetensors", read=lambda: load(run)),
        "calibration.json": Target(path=run / CALIBRATION, read=lambda: read_calibration(run)),
        "calibration.json in the report": Target(path=run / CALIBRATION, read=report),
        "compact.safetensors": Target(path=run / COMPACT, read=lambda: read_compact(run, model.dimensions)),
    }


def try_damaged(name: str, target: Target, seeds: range, until: float = float("inf")) -> list[str]:
    """What other than success or one sentence came of damaged versions of a file."""
    original = target.path.read_bytes()
    failures = []
    try:
        for seed in seeds:
            if time.monotonic() > until:
                break
            target.path.write_bytes(damage(original, (name, seed)))
            try:
                with warnings.catch_warnings(action="ignore"):
                    target.read()
            except UserError as error:
                if "\n" in str(error) or len(str(error)) > 2500:
                    failures.append(f"{name}, seed {seed}: a message of {len(str(error)):,} characters")
            except Exception as error:
                failures.append(f"{name}, seed {seed}: {type(error).__name__}: {str(error)[:200]}")
    finally:
        target.path.write_bytes(original)
    return failures


def test_damaged_files_are_explained(targets):
    until = time.monotonic() + SECONDS
    share = SECONDS / len(targets)
    failures = [
        failure
        for number, (name, target) in enumerate(targets.items(), 1)
        for failure in try_damaged(name, target, range(40), until - SECONDS + number * share)
    ]
    assert not failures, "\n".join(failures)


@pytest.mark.slow
def test_many_damaged_files_are_explained(targets):
    failures = []
    for name, target in targets.items():
        started = time.monotonic()
        failures += try_damaged(name, target, range(FULL_SLOW if name.endswith("in the report") else FULL))
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    assert not failures, "\n".join(failures)
