"""Generated sequences in the layout of HPatches' patch release."""

import cv2
import numpy as np

from csametric.data.hpatches import KINDS


def write_sequence(folder, count: int, seed: int = 0, noise: float = 12) -> dict[str, np.ndarray]:
    """Random textures with more noise from easy to tough; returns the patches by kind."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    clean = np.stack([cv2.resize(each, (65, 65)) for each in rng.integers(0, 256, (count, 9, 9)).astype(np.uint8)])
    patches = {}
    for kind in KINDS:
        disturbance = rng.normal(0, 1 + noise * "reht".index(kind[0]), clean.shape)
        patches[kind] = (clean + disturbance).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{kind}.png"), patches[kind].reshape(-1, 65))
    return patches


def write_tasks(root, split: str, names: list[str], counts: list[int], queries: int, distractors: int) -> None:
    """Retrieval files of a split: every patch once, the first ones as queries."""
    rng = np.random.default_rng(1)
    places = [(name, place) for name, count in zip(names, counts, strict=True) for place in range(count)]
    rng.shuffle(places)
    (root / "tasks").mkdir(exist_ok=True)
    for name, rows in (("queries", places[:queries]), ("distractors", places[queries : queries + distractors])):
        lines = "".join(f"{sequence},{place}\n" for sequence, place in rows)
        (root / "tasks" / f"retr_{name}_split-{split}.csv").write_text("s,idx\n" + lines)
