"""Load a finished run or a bundle as a function from images to embeddings."""

from pathlib import Path

import torch

from csametric.inference.images import ImageEmbedder
from csametric.inference.patches import PatchEmbedder
from csametric.runs.folder import read_experiment
from csametric.runs.kinds import call

Embedder = PatchEmbedder | ImageEmbedder


def load(run: str | Path, device: str | torch.device | None = None) -> Embedder:
    """Load the model of a finished run or of a bundle.

    Args:
        run: the folder of the run or bundle.
        device: where to put the model; by default a GPU if available, otherwise the CPU.

    Raises:
        UserError: the folder is neither a run nor a bundle, the run is not finished, or its weights do not fit its experiment.
    """
    folder = Path(run)
    experiment = read_experiment(folder)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return call(experiment, "load_model", folder, experiment, target)
