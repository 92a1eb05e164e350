"""The machine and the versions that a run was trained with."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from csametric.runs.precision import Precision

PACKAGES = ("csametric", "torch", "timm", "torchvision", "accelerate", "numpy", "opencv-python-headless", "scikit-image")


def describe_environment(device: torch.device, precision: Precision) -> dict[str, Any]:
    """Versions, processor, threads, device, and the arithmetic with the reason for it, ready for JSON."""
    return {
        "python": platform.python_version(),
        "commit": source_commit(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": platform.platform(),
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": precision.name,
        "precision_reason": precision.reason,
    }


def source_commit() -> str:
    """The commit of the source checkout, with "+" if files differ from it; the version if installed from a package."""
    checkout = Path(__file__).parents[3]
    if not (checkout / ".git").exists():
        return _version("csametric")
    describe = ["git", "describe", "--always", "--exclude=*", "--abbrev=7", "--dirty=+"]
    try:
        done = subprocess.run(describe, cwd=checkout, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return _version("csametric")
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
