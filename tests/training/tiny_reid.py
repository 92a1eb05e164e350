"""A re-identification run small enough for a test, also a program: python -m tests.training.tiny_reid RUN KIND PATH [X=Y]"""

import sys
from pathlib import Path

import torch

from csametric.recipes import find_recipe
from csametric.training.experiment import Experiment, override

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


if __name__ == "__main__":
    from csametric.training.loop import train

    torch.set_num_threads(2)
    folder, kind, path, *settings = sys.argv[1:]
    train(experiment(kind, Path(path), *settings), Path(folder))
