"""A finished run as a function from images to embeddings."""

from pathlib import Path

import torch

from csametric.inference.images import ImageEmbedder
from csametric.inference.patches import PatchEmbedder
from csametric.runs.folder import read_experiment
from csametric.runs.kinds import call


def load(run: str | Path, device: str | torch.device | None = None) -> PatchEmbedder | ImageEmbedder:
    """The model of a finished run or of a bundle, on the given device, by default a GPU where there is one.

    Raises:
        UserError: the folder is neither, the run is not finished, or its weights do not fit its experiment.
    """
    folder = Path(run)
    experiment = read_experiment(folder)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return call(experiment, "load_model", folder, experiment, target)
