"""The machine and the versions a run saw."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from csametric.training.precision import Precision

PACKAGES = ("csametric", "torch", "timm", "torchvision", "accelerate", "numpy", "opencv-python-headless", "scikit-image")


def describe_environment(device: torch.device, precision: Precision) -> dict[str, Any]:
    """Versions, processor, threads, device, and the arithmetic chosen with its reason, ready for JSON."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": platform.platform(),
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": precision.name,
        "precision_reason": precision.reason,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
