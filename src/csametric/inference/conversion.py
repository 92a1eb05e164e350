"""Runs from weights that were trained with other programs."""

from pathlib import Path

from csametric.errors import UserError
from csametric.files import replace_folder, write_text
from csametric.inference.patches import build_descriptor
from csametric.models.weights import from_hardnet, load_strictly, read_state
from csametric.runs.experiment import BrownExperiment
from csametric.runs.folder import EXPERIMENT, WEIGHTS, save_weights
from csametric.runs.overrides import to_json


def convert_hardnet(checkpoint: Path, run: Path) -> None:
    """Write a run folder with the weights of a HardNet checkpoint.

    Args:
        checkpoint: a .pth or .safetensors file, as saved by HardNet's authors or by `kornia.feature.HardNet`.
        run: the folder to create.

    Raises:
        UserError: the folder exists already, or the checkpoint cannot be read or does not fit HardNet.
    """
    if run.exists():
        raise UserError(f"{run} exists already; name another folder")
    experiment = BrownExperiment(recipe="brown_hardnet")
    model = build_descriptor(experiment.model)
    load_strictly(model, from_hardnet(read_state(checkpoint)), checkpoint)
    with replace_folder(run) as new:
        save_weights(new / WEIGHTS, model)
        write_text(new / EXPERIMENT, to_json(experiment))
