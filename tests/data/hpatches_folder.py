"""Writes generated sequences and task files in the layout of HPatches' patch release."""

import cv2
import numpy as np

from csametric.data.hpatches import PATCH_KINDS


def write_sequence(folder, count: int, seed: int = 0, noise: float = 12) -> dict[str, np.ndarray]:
    """Write random textures, with more noise from easy to tough, and return the patches by kind."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    clean = np.stack([cv2.resize(texture, (65, 65)) for texture in rng.integers(0, 256, (count, 9, 9)).astype(np.uint8)])
    patches = {}
    for kind in PATCH_KINDS:
        disturbance = rng.normal(0, 1 + noise * "reht".index(kind[0]), clean.shape)
        patches[kind] = (clean + disturbance).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{kind}.png"), patches[kind].reshape(-1, 65))
    return patches


def write_tasks(root, split: str, names: list[str], counts: list[int], queries: int, distractors: int) -> None:
    """Write the retrieval files of a split, drawing queries and distractors from all patches without repetition."""
    rng = np.random.default_rng(1)
    patches = [(name, index) for name, count in zip(names, counts, strict=True) for index in range(count)]
    rng.shuffle(patches)
    (root / "tasks").mkdir(exist_ok=True)
    for name, rows in (("queries", patches[:queries]), ("distractors", patches[queries : queries + distractors])):
        lines = "".join(f"{sequence},{index}\n" for sequence, index in rows)
        (root / "tasks" / f"retr_{name}_split-{split}.csv").write_text("s,idx\n" + lines)
