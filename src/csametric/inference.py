"""A finished run as a function from images to embeddings."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from csametric.errors import UserError
from csametric.models.l2net import PATCH_SIDE
from csametric.training.checkpoint import WEIGHTS, load_weights, read_experiment
from csametric.training.experiment import Experiment
from csametric.training.loop import build_model, embedder
from csametric.training.precision import choose_precision


class Embedder:
    """A trained model with the preprocessing it was trained with; made by `load`."""

    def __init__(self, model: nn.Module, experiment: Experiment, device: torch.device) -> None:
        self.model, self.experiment, self.device = model.to(device).eval(), experiment, device
        self.describe = embedder(self.model, device, choose_precision(experiment.precision, device))

    def embed(self, images: ArrayLike | Tensor) -> Tensor:
        """Grey patches (N, 32, 32) or (N, 1, 32, 32) -> unit vectors (N, 128), fp32 on the CPU.

        Any real type that NumPy has, any range: each patch is normalised by its own mean and deviation.

        Raises:
            UserError: another shape.
        """
        patches = np.asarray(images.detach().cpu() if isinstance(images, Tensor) else images)
        if patches.ndim == 4 and patches.shape[1] == 1:
            patches = patches[:, 0]
        if patches.ndim != 3 or patches.shape[1:] != (PATCH_SIDE, PATCH_SIDE):
            raise UserError(f"the model embeds grey patches (N, {PATCH_SIDE}, {PATCH_SIDE}), got {patches.shape}")
        return torch.from_numpy(self.describe(patches))


def load(run: str | Path, device: str | torch.device | None = None) -> Embedder:
    """The model of a finished run, on the given device, by default a GPU where there is one.

    Raises:
        UserError: the folder is no run, the run is not finished, or its weights do not fit its experiment.
    """
    folder = Path(run)
    experiment = read_experiment(folder)
    model = build_model(experiment.model)
    load_weights(folder / WEIGHTS, model)
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Embedder(model, experiment, torch.device(chosen))
