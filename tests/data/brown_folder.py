"""Writes a generated subset in the layout of Brown / UBC PhotoTour."""

import cv2
import numpy as np


def write_subset(folder, points: int = 120, per_point: int = 3, pairs: int = 400, seed: int = 0, noise: float = 12):
    """Write a subset and return its patches (P, 64, 64); those of a point show one random texture with different noise."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    textures = rng.integers(0, 256, (points, 8, 8)).astype(np.uint8)
    owners = np.repeat(np.arange(points), per_point)
    clean = np.stack([cv2.resize(textures[owner], (64, 64), interpolation=cv2.INTER_CUBIC) for owner in owners])
    patches = (clean + rng.normal(0, noise, clean.shape)).clip(0, 255).astype(np.uint8)
    for sheet in range(-(-len(patches) // 256)):
        write_sheet(folder / f"patches{sheet:04}.bmp", patches[sheet * 256 : (sheet + 1) * 256])
    (folder / "info.txt").write_text("".join(f"{owner} 0\n" for owner in owners))
    write_pairs(folder, owners, pairs, rng)
    return patches


def write_sheet(path, patches):
    """Write up to 256 patches of 64 x 64 pixels row by row, and black for the missing ones."""
    sheet = np.zeros((1024, 1024), np.uint8)
    for index, patch in enumerate(patches):
        row, column = divmod(index, 16)
        sheet[64 * row : 64 * row + 64, 64 * column : 64 * column + 64] = patch
    cv2.imwrite(str(path), sheet)


def write_pairs(folder, owners, pairs, rng):
    """Write random test pairs, at least every second of which is a match."""
    per_point = np.bincount(owners).max()
    first = rng.integers(len(owners), size=pairs)
    same = owners[first] * per_point + (first + 1) % per_point
    second = np.where(np.arange(pairs) % 2 == 0, same, rng.integers(len(owners), size=pairs))
    lines = [f"{a} {owners[a]} 0 {b} {owners[b]} 0 0\n" for a, b in zip(first, second, strict=True)]
    (folder / "m50_100000_100000_0.txt").write_text("".join(lines))
