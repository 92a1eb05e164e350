"""The run folder: what is written, atomically, and how a run is found again after a kill.

experiment.json   environment.json   metrics.jsonl   tensorboard/
state/checkpoint.pt    weights, optimizer and the number of steps done; random states and the position in the data
                       are pure functions of seed and step
weights.safetensors, scores.npz, scores.json    when the run is done, in this order
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from csametric.errors import UserError
from csametric.files import write_atomically, write_text
from csametric.models.weights import check_tensors
from csametric.runs.experiment import Experiment, from_json

EXPERIMENT = "experiment.json"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
CHECKPOINT = Path("state") / "checkpoint.pt"
WEIGHTS, BUNDLED_WEIGHTS = "weights.safetensors", "model.safetensors"
SCORES, EACH_SCORE = "scores.json", "scores.npz"
CONFIG = "config.json"  # in bundles only
RENAME = "give this run another folder (--name, or --out for the demo)"


def check_run_folder(folder: Path, experiment: Experiment) -> None:
    """See that the folder is free or already this experiment's; nothing is written.

    Raises:
        UserError: the folder holds a run with other settings, or something else.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is no folder; {RENAME}")
    if (folder / EXPERIMENT).exists():
        present = read_experiment(folder)
        if present != experiment:
            differences = _differences(present, experiment)
            raise UserError(f"{folder} holds a run with other settings ({differences}); {RENAME}, or remove that folder")
    elif folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise UserError(f"{folder} holds files but no {EXPERIMENT}; {RENAME}")


def check_data(folder: Path, data: dict[str, Any]) -> None:
    """See that the data are those the run began with, where there is a checkpoint to go on from.

    Raises:
        UserError: images were added, removed or changed.
    """
    if (folder / CHECKPOINT).exists() and read_environment(folder)["data"] != data:
        raise UserError(f"the images have changed since {folder} began; restore them, or {RENAME}")


def check_processes(folder: Path, processes: int) -> None:
    """See that a run that has begun goes on with as many processes: their number decides the batches.

    Raises:
        UserError: it began with another number.
    """
    if (folder / CHECKPOINT).exists():
        began_with = read_environment(folder)["processes"]
        if began_with != processes:
            mend = f"go on with torchrun --nproc-per-node {began_with}" if began_with > 1 else "go on without torchrun"
            raise UserError(f"{folder} began with {began_with} processes and has {processes} now; {mend}, or {RENAME}")


def read_experiment(folder: Path) -> Experiment:
    """The experiment of a run folder.

    Raises:
        UserError: the folder is no run.
    """
    path = folder / EXPERIMENT
    if not path.is_file():
        raise UserError(f"{folder} is no run: it has no {EXPERIMENT}; name a folder that `csametric train` made")
    try:
        return from_json(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        mend = "get the bundle again" if (folder / CONFIG).exists() else f"remove {folder} and train again"
        raise UserError(f"{path} is damaged ({error}); {mend}") from error


def save_weights(path: Path, model: nn.Module) -> None:
    """The state dict as safetensors, in plain contiguous layout."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(path, lambda out: out.write(save(tensors)))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a run's or a bundle's weights by name.

    Raises:
        UserError: the file is missing or damaged.
    """
    bundled = path.name == BUNDLED_WEIGHTS
    if not path.is_file():
        mend = "get the bundle again" if bundled else "the run is not finished; run its `csametric train` again"
        raise UserError(f"{path.parent} has no {path.name}: {mend}")
    try:
        tensors = load_file(path)
        check_tensors(tensors)
        return tensors
    except (SafetensorError, ValueError) as error:
        mend = "get the bundle again" if bundled else "remove it and train again"
        raise UserError(f"{path} is damaged ({error}); {mend}") from error


def weights_of(folder: Path) -> Path:
    """Where the weights of a run, or of a bundle, are or should be."""
    is_bundle = (folder / BUNDLED_WEIGHTS).is_file() or (folder / CONFIG).is_file()
    return folder / (BUNDLED_WEIGHTS if is_bundle and not (folder / WEIGHTS).is_file() else WEIGHTS)


def load_weights(path: Path, model: nn.Module) -> None:
    """Load a safetensors file strictly.

    Raises:
        UserError: the file is missing or damaged, or its tensors are not the model's.
    """
    fit_weights(read_weights(path), model, path)


def fit_weights(tensors: dict[str, Tensor], model: nn.Module, path: Path) -> None:
    """Give a model the tensors that were read from a path.

    Raises:
        UserError: they are not the model's.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit the model its experiment describes: {error}") from error


def keep_metrics_until(folder: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl after `step`, and a last line that a kill cut short."""
    path = folder / METRICS
    if path.exists():
        write_text(path, "".join(json.dumps(row) + "\n" for row in read_metrics(folder) if row["step"] <= step))


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of metrics.jsonl; a last line that a kill cut short is left out."""
    path = folder / METRICS
    if not path.is_file():
        raise UserError(f"{folder} has no {METRICS}; train it again")
    try:
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged ({error}); remove {folder} and train again") from error


def read_scores(folder: Path) -> dict[str, Any]:
    """The scores of a finished run, as JSON values.

    Raises:
        UserError: the run is not finished, or the file is damaged.
    """
    path = folder / SCORES
    if not path.is_file():
        raise UserError(f"{folder} has no {SCORES}: the run is not finished; run its `csametric train` again")
    return _read_json(path)


def write_scores(folder: Path, scores: Mapping[str, Any]) -> None:
    """Arrays (a number a query, a distance a pair) go to scores.npz, the rest to scores.json, which is written last."""
    arrays = {name: value for name, value in scores.items() if isinstance(value, np.ndarray)}
    if arrays:
        write_atomically(folder / EACH_SCORE, lambda out: np.savez_compressed(out, allow_pickle=False, **arrays))
    rest = {name: value for name, value in scores.items() if name not in arrays}
    write_text(folder / SCORES, json.dumps(rest, indent=1))


def read_each_score(folder: Path) -> dict[str, NDArray]:
    """The arrays of scores.npz by name; none where the run wrote none.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / EACH_SCORE
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}); remove it and give the same command again") from error


def read_environment(folder: Path) -> dict[str, Any]:
    """The machine, the versions and the images a run was trained with; its commits, where it went on with another one.

    Raises:
        UserError: the file is missing or damaged.
    """
    return _read_json(folder / ENVIRONMENT)


def read_commits(folder: Path) -> list[str]:
    """Of the code that trained and scored a run; "unknown" where an older version did."""
    return read_environment(folder).get("commit", "unknown").split(", ")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} is missing; remove {path.parent} and train again")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); remove {path.parent} and train again") from error


def _differences(present: Experiment, wanted: Experiment) -> str:
    old, new = _flat(asdict(present)), _flat(asdict(wanted))
    return ", ".join(f"{name}={old.get(name)} there, {new.get(name)} here" for name in new if old.get(name) != new[name])


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
