"""Load a finished run or a bundle as a function from images to embeddings."""

from pathlib import Path

import torch

from csametric.errors import UserError
from csametric.inference.engines import ENGINES, EngineName, onnx_engine
from csametric.inference.images import ImageEmbedder
from csametric.inference.patches import PatchEmbedder
from csametric.runs.folder import read_experiment
from csametric.runs.kinds import call

Embedder = PatchEmbedder | ImageEmbedder


def load(run: str | Path, device: str | torch.device | None = None, engine: EngineName = "torch") -> Embedder:
    """Load the model of a finished run or of a bundle.

    Args:
        run: the folder of the run or bundle.
        device: where to put the model; by default a GPU if available, otherwise the CPU.
        engine: what computes the features of a re-identification model. "onnxruntime" is faster than "torch" on processors
            without bf16 units, and computes on the CPU in fp32; "onnxruntime-int8" is faster still and less accurate. Their
            first use writes an ONNX model into the run or bundle.

    Raises:
        UserError: the folder is neither a run nor a bundle, the run is not finished, its weights do not fit its experiment, or
            the engine is unknown or cannot compute this model.
    """
    folder = Path(run)
    if engine not in ENGINES:
        raise UserError(f"unknown engine {engine!r}; use one of {', '.join(ENGINES)}")
    experiment = read_experiment(folder)
    if engine == "torch":
        target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return call(experiment, "load_model", folder, experiment, target)
    model = call(experiment, "load_model", folder, experiment, torch.device("cpu"))
    if not isinstance(model, ImageEmbedder):
        raise UserError(f"{folder} is a descriptor, which only the engine torch can compute; leave the engine out")
    model.engine = onnx_engine(engine, folder, model.model, model.experiment)
    return model
