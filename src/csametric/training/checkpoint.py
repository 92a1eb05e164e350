"""The run folder: what is written, atomically, and how a run is found again after a kill.

experiment.json   environment.json   metrics.jsonl   tensorboard/
state/checkpoint.pt    weights, optimizer and the number of steps done; random states and the position in the data
                       are pure functions of seed and step
weights.safetensors, scores.json    when the run is done
"""

import io
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn, optim

from csametric.errors import UserError
from csametric.training.experiment import Experiment, from_json, to_json

EXPERIMENT = "experiment.json"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
CHECKPOINT = Path("state") / "checkpoint.pt"
WEIGHTS = "weights.safetensors"
SCORES = "scores.json"


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write aside, fsync, rename: a reader or a kill sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as out:
            write(out)
            out.flush()
            os.fsync(out.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text, UTF-8."""
    write_atomically(path, lambda out: out.write(text.encode()))


def claim_run_folder(folder: Path, experiment: Experiment) -> None:
    """Make the folder this experiment's, or find that it already is.

    Raises:
        UserError: the folder holds a run with other settings, or something else.
    """
    path = folder / EXPERIMENT
    if path.exists():
        present = read_experiment(folder)
        if present != experiment:
            raise UserError(
                f"{folder} holds a run with other settings ({_differences(present, experiment)}); "
                "give this run another --name, or remove that folder"
            )
    elif folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise UserError(f"{folder} holds files but no {EXPERIMENT}; give this run another --name")
    else:
        write_text(path, to_json(experiment))


def read_experiment(folder: Path) -> Experiment:
    """The experiment of a run folder.

    Raises:
        UserError: the folder is no run.
    """
    path = folder / EXPERIMENT
    if not path.is_file():
        raise UserError(f"{folder} is no run: it has no {EXPERIMENT}; name a folder that `csametric train` made")
    return from_json(path.read_text())


def save_checkpoint(folder: Path, step: int, model: nn.Module, optimizer: optim.Optimizer) -> None:
    """Save the state after `step` steps."""
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    write_atomically(folder / CHECKPOINT, lambda out: torch.save(state, out))


def load_checkpoint(folder: Path, model: nn.Module, optimizer: optim.Optimizer) -> int:
    """Restore the latest state, strictly; the number of steps done, 0 without a checkpoint."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    state = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def save_weights(path: Path, model: nn.Module) -> None:
    """The state dict as safetensors, in plain contiguous layout."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(path, lambda out: out.write(save(tensors)))


def load_weights(path: Path, model: nn.Module) -> None:
    """Load a safetensors file strictly.

    Raises:
        UserError: the file is missing or its tensors are not the model's.
    """
    if not path.is_file():
        raise UserError(f"{path.parent} has no {path.name}: the run is not finished; run its `csametric train` again")
    tensors: dict[str, Tensor] = load_file(path)
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
    lines = (folder / METRICS).read_text().split("\n")
    return [json.loads(line) for line in lines[:-1]]


def _differences(present: Experiment, wanted: Experiment) -> str:
    old, new = _flat(asdict(present)), _flat(asdict(wanted))
    return ", ".join(f"{name}={old.get(name)} there, {new.get(name)} here" for name in new if old.get(name) != new[name])


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
