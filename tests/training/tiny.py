"""A descriptor run small enough for a test; as a program: python -m tests.training.tiny FOLDER PHOTOS CACHE [NAME=VALUE ...]"""

import sys
from pathlib import Path

from csametric.recipes import find_recipe
from csametric.runs.experiment import Experiment
from csametric.runs.overrides import override

SETTINGS = [
    "steps=12",
    "batch_size=16",
    "evaluate_every=5",
    "checkpoint_every=2",
    "data.keypoints=200",
    "data.views=4",
    "data.held_out_keypoints=40",
]


def experiment(photos: Path, *settings: str) -> Experiment:
    return override(find_recipe("hardnet_csa"), [f"data.folder={photos}", *SETTINGS, *settings])


if __name__ == "__main__":
    from csametric.training.loop import train

    folder, photos, cache, *settings = sys.argv[1:]
    train(experiment(Path(photos), *settings), Path(folder), Path(cache))
