"""The run folder: what is written, atomically, and how a run is found again after a kill.

experiment.json   environment.json   metrics.jsonl   tensorboard/
state/checkpoint.pt    weights, optimizer and the number of steps done; random states and the position in the data
                       are pure functions of seed and step
weights.safetensors, scores.npz, scores.json    when the run is done, in this order
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save
from torch import Tensor, nn

from csametric.errors import FolderInUseError, UserError
from csametric.files import write_atomically, write_text
from csametric.models.weights import check_tensors
from csametric.runs.experiment import Experiment
from csametric.runs.overrides import from_json

EXPERIMENT = "experiment.json"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
CHECKPOINT = Path("state") / "checkpoint.pt"
WEIGHTS, BUNDLED_WEIGHTS = "weights.safetensors", "model.safetensors"
DIGEST = "sha256"  # key of the digest in the metadata of weights
SCORES, SCORES_BY_QUERY = "scores.json", "scores.npz"
ONNX_MODEL, INT8_MODEL = "model.onnx", "model_int8.onnx"  # written by exports and by the engine onnxruntime
CONFIG = "config.json"  # in bundles only
RENAME = "choose another folder for this run"


def check_run_folder(folder: Path, experiment: Experiment) -> None:
    """Check that the folder is free or already belongs to this experiment; nothing is written.

    Raises:
        FolderInUseError: the folder holds a run with other settings, or something else.
    """
    if folder.exists() and not folder.is_dir():
        raise FolderInUseError(f"{folder} is a file; {RENAME}")
    if (folder / EXPERIMENT).exists():
        present = read_experiment(folder)
        if present != experiment:
            differences = _differences(present, experiment)
            raise FolderInUseError(f"{folder} holds a run with other settings ({differences}); {RENAME} or remove that folder")
    elif folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise FolderInUseError(f"{folder} holds files but no {EXPERIMENT}; {RENAME}")


def check_data(folder: Path, data: dict[str, Any]) -> None:
    """Check that the data of a run with a checkpoint are still those that it started with.

    Raises:
        FolderInUseError: images were added, removed or changed.
    """
    if (folder / CHECKPOINT).exists() and read_environment(folder)["data"] != data:
        raise FolderInUseError(f"the images have changed since {folder} was started; restore them or {RENAME}")


def check_processes(folder: Path, processes: int) -> None:
    """Check that a run with a checkpoint resumes with the number of processes that it started with: it decides the batches.

    Raises:
        FolderInUseError: the number differs.
    """
    if (folder / CHECKPOINT).exists():
        before = read_environment(folder)["processes"]
        if before != processes:
            advice = f"resume it with torchrun and {before} processes" if before > 1 else "resume it without torchrun"
            raise FolderInUseError(f"{folder} was started with {before} processes, not {processes}; {advice}, or {RENAME}")


def read_experiment(folder: Path) -> Experiment:
    """The experiment of a run folder or a bundle.

    Raises:
        UserError: the folder is neither, or its experiment is damaged.
    """
    path = folder / EXPERIMENT
    if not path.is_file():
        raise UserError(f"{folder} is not a run: {EXPERIMENT} is missing; name a folder that `csametric train` made")
    try:
        return from_json(path.read_text())
    except UserError:
        raise
    except (ValueError, OverflowError, RecursionError) as error:
        advice = "get the bundle again" if (folder / CONFIG).exists() else f"remove {folder} and train again"
        raise UserError(f"{path} is damaged ({error}); {advice}") from error


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a state dict as safetensors, in plain contiguous layout, with a digest of its values in the metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    content = save(tensors, {DIGEST: _split_safetensors(save(tensors)).digest})
    write_atomically(path, lambda out: out.write(content))


class _Safetensors(NamedTuple):
    """What a file of weights says about its values, and what they are."""

    metadata: dict[str, str]
    digest: str  # SHA-256 of the values


def _split_safetensors(content: bytes) -> _Safetensors:
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    return _Safetensors(header.get("__metadata__", {}), hashlib.sha256(content[8 + size :]).hexdigest())


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a run's or bundle's weights, by name.

    Raises:
        UserError: the file is missing or damaged.
    """
    bundled = path.name == BUNDLED_WEIGHTS
    if not path.is_file():
        advice = "get the bundle again" if bundled else "the run is not finished; run its `csametric train` again"
        raise UserError(f"{path.name} is missing in {path.parent}: {advice}")
    content = path.read_bytes()
    try:
        tensors = load_safetensors(content)
        check_tensors(tensors)
        metadata, digest = _split_safetensors(content)
        if metadata.get(DIGEST, digest) != digest:  # files of older versions have none
            raise ValueError("its values are not those that were saved")
        return tensors
    except (SafetensorError, ValueError) as error:
        advice = "get the bundle again" if bundled else "remove it and train again"
        raise UserError(f"{path} is damaged ({error}); {advice}") from error


def digest_of_weights(folder: Path) -> str:
    """SHA-256 of the values of the weights of a run or bundle."""
    return _split_safetensors(weights_of(folder).read_bytes()).digest


def weights_of(folder: Path) -> Path:
    """The path that the weights of a run or bundle have, or will have."""
    is_bundle = (folder / BUNDLED_WEIGHTS).is_file() or (folder / CONFIG).is_file()
    return folder / (BUNDLED_WEIGHTS if is_bundle and not (folder / WEIGHTS).is_file() else WEIGHTS)


def load_weights(path: Path, model: nn.Module) -> None:
    """Load a safetensors file strictly.

    Raises:
        UserError: the file is missing or damaged, or its tensors do not fit the model.
    """
    fit_weights(read_weights(path), model, path)


def fit_weights(tensors: dict[str, Tensor], model: nn.Module, path: Path) -> None:
    """Load tensors that were read from a path into a model, strictly.

    Raises:
        UserError: they do not fit the model.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit the model that its experiment describes: {error}") from error


def keep_metrics_until(folder: Path, step: int) -> None:
    """Remove the lines of metrics.jsonl after `step`, and a last line that a kill cut short."""
    path = folder / METRICS
    if path.exists():
        write_text(path, "".join(json.dumps(row) + "\n" for row in read_metrics(folder) if row["step"] <= step))


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of metrics.jsonl; a last line that a kill cut short is left out.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / METRICS
    if not path.is_file():
        raise UserError(f"{METRICS} is missing in {folder}; train it again")
    try:
        rows = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
        if not all(isinstance(row, dict) and "step" in row for row in rows):
            raise ValueError("a line is not a JSON object with a step")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); remove {folder} and train again") from error
    return rows


def read_scores(folder: Path, required: Mapping[str, type | UnionType] | None = None) -> dict[str, Any]:
    """The scores of a finished run, as JSON values.

    Args:
        folder: of the run.
        required: the types of values that the caller needs, by key.

    Raises:
        UserError: the run is not finished, or the file is damaged.
    """
    path = folder / SCORES
    if not path.is_file():
        raise UserError(f"{SCORES} is missing in {folder}: the run is not finished; run its `csametric train` again")
    scores = _read_object(path)
    for name, kind in (required or {}).items():
        if not isinstance(scores.get(name), kind):
            raise damaged_scores(folder, f"{name} is {scores.get(name)!r}")
    return scores


def damaged_scores(folder: Path, problem: object) -> UserError:
    """The error for a scores.json that does not hold what its kind of run writes."""
    return UserError(f"{folder / SCORES} is damaged ({problem}); remove it and give the same command again")


def write_scores(folder: Path, scores: Mapping[str, Any]) -> None:
    """Write arrays (one number per query, one distance per pair) to scores.npz and then the rest to scores.json."""
    arrays = {name: value for name, value in scores.items() if isinstance(value, np.ndarray)}
    if arrays:
        write_atomically(folder / SCORES_BY_QUERY, lambda out: np.savez_compressed(out, allow_pickle=False, **arrays))
    rest = {name: value for name, value in scores.items() if name not in arrays}
    write_text(folder / SCORES, json.dumps(rest, indent=1))


def read_scores_by_query(folder: Path) -> dict[str, NDArray]:
    """The arrays of scores.npz by name; empty if the run wrote none.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / SCORES_BY_QUERY
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # a damaged archive can raise anything
        raise UserError(f"{path} is damaged ({error}); remove it and give the same command again") from error


def read_environment(folder: Path) -> dict[str, Any]:
    """The machine, the versions and the images that a run was trained with, as JSON values.

    Raises:
        UserError: the file is missing or damaged.
    """
    return _read_object(folder / ENVIRONMENT)


def read_commits(folder: Path) -> list[str]:
    """The commits of the code that trained and scored a run; "unknown" if an older version did."""
    return read_environment(folder).get("commit", "unknown").split(", ")


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object with at least one key."""
    if not path.is_file():
        raise UserError(f"{path} is missing; remove {path.parent} and train again")
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict) or not values:
            raise ValueError("it is not a JSON object with keys")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); remove {path.parent} and train again") from error
    return values


def _differences(present: Experiment, given: Experiment) -> str:
    old, new = _flat(asdict(present)), _flat(asdict(given))
    return ", ".join(f"{name}={old.get(name)} there, {new.get(name)} here" for name in new if old.get(name) != new[name])


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
