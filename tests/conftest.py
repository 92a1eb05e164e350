"""Small data that several tests share."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when csametric is imported; the fused kernels then run on the CPU, slowly


@pytest.fixture(autouse=True)
def two_threads():
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five textured photographs of 160 x 200 pixels, enough for a few hundred keypoints."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(7)
    for index in range(5):
        coarse = cv2.resize(rng.integers(0, 256, (20, 25), dtype=np.uint8), (200, 160), interpolation=cv2.INTER_CUBIC)
        fine = cv2.resize(rng.integers(0, 256, (54, 67), dtype=np.uint8), (200, 160), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"photo{index}.png"), coarse // 2 + fine // 2)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")
