"""Checkpoints: weights and optimizer after a step, saved atomically and restored strictly."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn, optim

from csametric.errors import UserError
from csametric.files import write_atomically
from csametric.models.weights import check_archive, check_tensors
from csametric.runs.folder import CHECKPOINT


def save_checkpoint(folder: Path, step: int, model: nn.Module, optimizer: optim.Optimizer) -> None:
    """Save the state of training after `step` steps."""
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    serialised = io.BytesIO()
    torch.save(state, serialised)
    write_atomically(folder / CHECKPOINT, lambda out: out.write(serialised.getbuffer()))


def load_checkpoint(folder: Path, model: nn.Module, optimizer: optim.Optimizer) -> int:
    """Restore the last checkpoint of a run into its model and optimizer.

    Returns:
        The number of steps done; 0 without a checkpoint.

    Raises:
        UserError: the checkpoint is damaged, or of another version of csametric.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    serialised = io.BytesIO(path.read_bytes())
    try:
        check_archive(serialised)
        state = torch.load(serialised, map_location="cpu", weights_only=True)
        check_tensors(state["model"])
        model.load_state_dict(state["model"])
        _check_shapes(state["optimizer"], optimizer)
        optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
        if step < 1:
            raise ValueError(f"step {step}")
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"{path} is damaged or of another version of csametric; remove it to train from the start") from error
    return step


def _check_shapes(state: dict[str, Any], optimizer: optim.Optimizer) -> None:
    """Raise `ValueError` if a momentum has another shape than its parameter, which `load_state_dict` does not check."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in state["state"].items():
        for value in values.values():
            if isinstance(value, torch.Tensor) and value.dim() and value.shape != parameters[index].shape:
                raise ValueError(f"momentum {index} has shape {tuple(value.shape)}")
