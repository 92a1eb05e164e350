"""Small generated versions of the paper's datasets, in their own layouts under one folder.

Also a program: python -m tests.reproduction.paper_data ROOT
"""

import sys
from pathlib import Path

import numpy as np

from csametric.data.hpatches import read_splits
from tests.data import people
from tests.data.brown_folder import write_subset
from tests.data.hpatches_folder import write_sequence, write_tasks

NOISE = 100  # grey levels, enough that models make mistakes


def write_all(root: Path) -> Path:
    people.write_market(root / "Market-1501-v15.09.15", NOISE)
    people.write_market(root / "DukeMTMC-reID", NOISE + 20)
    people.write_cuhk03_folders(root / "CUHK03-NP", NOISE + 40)
    for seed, name in enumerate(("liberty", "notredame", "yosemite")):
        write_subset(root / "brown" / name, points=60, pairs=400, seed=seed, noise=3 * NOISE)
    write_hpatches(root / "hpatches-release")
    return root


def write_hpatches(root: Path) -> None:
    names = read_splits()["full"]
    counts = np.random.default_rng(0).integers(3, 6, len(names)).tolist()
    for number, (name, count) in enumerate(zip(names, counts, strict=True)):
        write_sequence(root / name, count, seed=number, noise=NOISE)
    write_tasks(root, "full", names, counts, queries=100, distractors=300)


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
