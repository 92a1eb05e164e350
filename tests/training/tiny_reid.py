"""A re-identification run small enough for a test; as a program: python -m tests.training.tiny_reid RUN KIND PATH [X=Y]"""

import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from csametric.recipes import find_recipe
from csametric.runs.experiment import Experiment, override

SETTINGS = [
    "precision=fp32",
    "model.backbone=test_resnet",
    "model.pretrained=none",
    "model.parts=3",
    "model.maps=4",
    "model.embedding=32",
    "data.height=48",
    "data.width=16",
    "batch_size=16",
    "epochs=8",
    "checkpoint_every=2",
]


def experiment(kind: str, path: Path, *settings: str) -> Experiment:
    return override(find_recipe("pcb_csa"), [f"data.kind={kind}", f"data.path={path}", *SETTINGS, *settings])


def main() -> None:
    from csametric.training import loop, reid_scoring

    torch.set_num_threads(2)
    folder, kind, path, *settings = sys.argv[1:]
    batch_size = os.environ.get("CSAMETRIC_TEST_EMBED_BATCH")
    if batch_size:
        reid_scoring.EMBED_BATCH = int(batch_size)
        keep_gallery_features(Path(folder), reid_scoring)
    loop.train(experiment(kind, Path(path), *settings), Path(folder))


def keep_gallery_features(folder: Path, scoring: ModuleType) -> None:
    """Save the features from which the main process computes the scores."""
    embed_records = scoring.embed_records

    def embed_and_save(model, records, height, width, machine, flip=False):
        features = embed_records(model, records, height, width, machine, flip)
        if machine.is_main:
            np.save(folder / "features.npy", features)
        return features

    scoring.embed_records = embed_and_save


if __name__ == "__main__":
    main()
