"""A finished run as a function from images to embeddings."""

from pathlib import Path

import torch

from csametric.inference.images import ImageEmbedder, build_pcb
from csametric.inference.patches import PatchEmbedder, build_descriptor
from csametric.runs.experiment import PatchExperiment, ReidExperiment
from csametric.runs.folder import fit_weights, load_weights, read_experiment, read_weights, weights_of


def load(run: str | Path, device: str | torch.device | None = None) -> PatchEmbedder | ImageEmbedder:
    """The model of a finished run or of a bundle, on the given device, by default a GPU where there is one.

    Raises:
        UserError: the folder is neither, the run is not finished, or its weights do not fit its experiment.
    """
    folder = Path(run)
    experiment = read_experiment(folder)
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if isinstance(experiment, PatchExperiment):
        network = build_descriptor(experiment.model)
        load_weights(weights_of(folder), network)
        return PatchEmbedder(network, experiment, chosen)
    assert isinstance(experiment, ReidExperiment)
    weights = read_weights(weights_of(folder))
    num_ids = len(weights.get("classifiers.0.bias", (0,)))  # fit_weights explains weights of something else
    model = build_pcb(experiment.model, num_ids, trained=True)
    fit_weights(weights, model, weights_of(folder))
    return ImageEmbedder(model, experiment, chosen)
