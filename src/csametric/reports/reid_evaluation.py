"""Evaluations of re-identification runs on disk: scores as JSON, ranked lists as a picture."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from csametric.files import write_text
from csametric.reports.reid_report import ranked_picture
from csametric.runs.experiment import ReidData
from csametric.runs.folder import BUNDLED_WEIGHTS, weights_of
from csametric.visualization.figures import save_figure


def write_evaluation(run: Path, scores: Mapping[str, Any], data: ReidData, options: Sequence[str]) -> tuple[Path, Path]:
    """Write the scores of a run on a dataset, and a picture of its ranked lists.

    The files go to the folder `evaluation` of a run; for a bundle, which is not changed, they go to a folder beside it. They
    contain no path of this machine.

    Args:
        run: a run or a bundle.
        scores: as returned by `score_dataset`.
        data: the dataset that was evaluated.
        options: of the evaluation, for the file name, for example ["rerank"].

    Returns:
        The paths of the .json and the .png.
    """
    name = "-".join([scores["dataset"], *options]).replace(" ", "-").lower()
    stem = _file_stem(_evaluation_folder(run), name, data.path)
    json_path, picture_path = Path(f"{stem}.json"), Path(f"{stem}.png")
    values = {key: value for key, value in scores.items() if not isinstance(value, np.ndarray)}
    values |= {"data": f"{data.kind}:{Path(data.path).name}", "path_digest": _path_digest(data.path)}
    write_text(json_path, json.dumps(values, indent=1))
    save_figure(ranked_picture(scores, data), picture_path)
    return json_path, picture_path


def _evaluation_folder(run: Path) -> Path:
    is_bundle = weights_of(run).name == BUNDLED_WEIGHTS
    return run.resolve().with_name(f"{run.resolve().name}-evaluation") if is_bundle else run / "evaluation"


def _file_stem(folder: Path, name: str, data_path: str) -> Path:
    """The files' path without suffix; it has a digest of the data path if another dataset of the same name took the name."""
    existing = folder / f"{name}.json"
    digest = _path_digest(data_path)
    if existing.is_file() and json.loads(existing.read_text()).get("path_digest") != digest:
        return folder / f"{name}-{digest}"
    return folder / name


def _path_digest(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:6]
