"""Fixtures that several rooms share: a thread limit, photographs, a cache, the documentation site."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
BUILD_SITE = """
import sys
from mkdocs.__main__ import cli
cli(["build", "--strict", "--config-file", sys.argv[1], "--site-dir", sys.argv[2]], standalone_mode=False)
sys.exit("the reference must be read from the source, but torch was imported" if "torch" in sys.modules else 0)
"""

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when csametric is imported; the fused kernels then run on the CPU, slowly


torch.set_num_threads(1)  # tests run in one process per core; more threads would only wait for one another
os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}  # also for the commands that tests start


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


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation site, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-c", BUILD_SITE, str(ROOT / "mkdocs.yml"), str(folder)]
    built = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert built.returncode == 0, built.stdout + built.stderr
    return folder
