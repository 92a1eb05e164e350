"""A re-identification run small enough for a test, also a program.

python -m tests.training.tiny_reid [--embed-batch N] RUN KIND PATH [NAME=VALUE ...]; with --embed-batch the main process saves
the gallery features that it scores, in RUN/features.npy.
"""

import argparse
from pathlib import Path
from types import ModuleType

import numpy as np

from csametric.recipes import find_recipe
from csametric.runs.experiment import Experiment
from csametric.runs.overrides import override

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

    parser = argparse.ArgumentParser()
    parser.add_argument("--embed-batch", type=int)
    parser.add_argument("words", nargs="+")
    arguments = parser.parse_args()
    folder, kind, path, *settings = arguments.words
    if arguments.embed_batch:
        reid_scoring.EMBED_BATCH = arguments.embed_batch
        keep_gallery_features(Path(folder), reid_scoring)
    loop.train(experiment(kind, Path(path), *settings), Path(folder))


def keep_gallery_features(folder: Path, scoring: ModuleType) -> None:
    """Save the features from which the main process computes the scores."""
    embed_records = scoring.embed_records

    def embed_and_save(engine, records, height, width, machine, flip=False):
        features = embed_records(engine, records, height, width, machine, flip)
        if machine.is_main:
            np.save(folder / "features.npy", features)
        return features

    scoring.embed_records = embed_and_save


if __name__ == "__main__":
    main()
