"""Generated people, written in each dataset's layout: an identity is a pattern of colours, a camera adds brightness."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

IDENTITIES, CAMERAS, IMAGES = 8, 2, 4  # per split, per identity, per identity and camera
HEIGHT, WIDTH = 48, 16


def person(identity: int, camera: int, number: int, noise: float = 12) -> Image.Image:
    """Draw image `number` of a person; the numbers differ in their noise."""
    pattern = np.random.default_rng(identity).integers(0, 200, (6, 2, 3))
    rng = np.random.default_rng((identity, camera, number))
    image = pattern.repeat(HEIGHT // 6, 0).repeat(WIDTH // 2, 1) + 20 * camera + rng.normal(0, noise, (HEIGHT, WIDTH, 3))
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def images() -> list[tuple[str, int, int, int]]:
    """List (split, identity, camera, number); the first image of each camera of a test identity is a query."""
    entries = []
    for identity in range(1, 2 * IDENTITIES + 1):
        for camera in range(1, CAMERAS + 1):
            for number in range(IMAGES):
                test_split = "query" if number == 0 else "gallery"
                split = "train" if identity <= IDENTITIES else test_split
                entries.append((split, identity, camera, number))
    return entries


def write_market(root: Path, noise: float = 12) -> Path:
    """Write Market-1501's layout with one junk image and one distractor."""
    folders = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
    for split, identity, camera, number in images():
        folder = root / folders[split]
        folder.mkdir(parents=True, exist_ok=True)
        person(identity, camera, number, noise).save(folder / f"{identity:04d}_c{camera}s1_{number:06d}_00.png")
    person(99, 1, 0).save(root / folders["gallery"] / "-1_c1s1_000000_00.png")
    person(98, 2, 0).save(root / folders["gallery"] / "0000_c2s1_000000_00.png")
    return root


def write_cuhk03_folders(root: Path, noise: float = 12) -> Path:
    write_market(root / "detected", noise)
    return root


def write_cuhk03_protocol(root: Path) -> Path:
    (root / "images_detected").mkdir(parents=True)
    files, splits = [], {"train": [], "query": [], "gallery": []}
    for index, (split, identity, camera, number) in enumerate(images(), 1):
        files.append(f"1_{identity:03d}_{camera}_{number + 1:02d}.png")
        person(identity, camera, number).save(root / "images_detected" / files[-1])
        splits[split].append(index)
    content = {f"{split}_idx": np.array(indices)[:, None] for split, indices in splits.items()}
    content["labels"] = np.array([identity for _, identity, _, _ in images()])[:, None]
    content["camId"] = np.array([camera for _, _, camera, _ in images()])[:, None]
    content["filelist"] = np.array(files, dtype=object)[:, None]
    savemat(root / "cuhk03_new_protocol_config_detected.mat", content)
    return root


def write_msmt17(root: Path) -> Path:
    lines = {name: [] for name in ("train", "val", "query", "gallery")}
    for split, identity, camera, number in images():
        part = "train" if split == "train" else "test"
        zero_based = identity - 1 if part == "train" else identity - 1 - IDENTITIES
        name = f"{zero_based:04d}/{zero_based:04d}_{number:03d}_{camera:02d}_0303morning_0008_0.png"
        (root / part / name).parent.mkdir(parents=True, exist_ok=True)
        person(identity, camera, number).save(root / part / name)
        lines["val" if split == "train" and number == 0 else split].append(f"{name} {zero_based}")
    for name, content in lines.items():
        (root / f"list_{name}.txt").write_text("\n".join(content) + "\n")
    return root


def write_folders(root: Path) -> Path:
    for split, identity, camera, number in images():
        folder = root / split / f"person {identity:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        person(identity, camera, number).save(folder / f"cam{camera}_{number}.png")
    return root


def write_manifest(root: Path) -> Path:
    root.mkdir(parents=True)
    lines = ["path,id,camera,split"]
    for split, identity, camera, number in images():
        name = f"{identity}-{camera}-{number}.png"
        person(identity, camera, number).save(root / name)
        lines.append(f"{name},person {identity:02d},{camera},{split}")
    (root / "people.csv").write_text("\n".join(lines) + "\n")
    return root / "people.csv"


# The kind of dataset, and the function that writes the layout and returns the path to read it from.
LAYOUTS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "market1501": ("market1501", write_market),
    "dukemtmc": ("dukemtmc", write_market),
    "cuhk03 folders": ("cuhk03-detected", write_cuhk03_folders),
    "cuhk03 protocol": ("cuhk03-detected", write_cuhk03_protocol),
    "msmt17": ("msmt17", write_msmt17),
    "folder": ("folder", write_folders),
    "csv": ("csv", write_manifest),
}
