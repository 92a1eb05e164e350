"""Deep metric learning with compressed self-attention.

The public names load on first use, so that `import csametric` imports neither the compile stack nor OpenCV, timm or
matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csametric.attention.insertion import insert_after
    from csametric.attention.layers import CompressedSelfAttention, SelfAttention
    from csametric.evaluation.calibration import calibrate_distances
    from csametric.evaluation.reid import evaluate_distances, evaluate_reid
    from csametric.evaluation.rerank import k_reciprocal_distances
    from csametric.evaluation.verification import fpr95
    from csametric.inference.bundle import Bundle
    from csametric.inference.load import load
    from csametric.losses.hardnet import hardnet_loss
    from csametric.losses.ralnet import ral_loss
    from csametric.models.l2net import L2Net
    from csametric.models.pcb import PCB
    from csametric.search.gallery import Gallery

__version__ = "0.1.0"
__all__ = [
    "PCB",
    "Bundle",
    "CompressedSelfAttention",
    "Gallery",
    "L2Net",
    "SelfAttention",
    "calibrate_distances",
    "evaluate_distances",
    "evaluate_reid",
    "fpr95",
    "hardnet_loss",
    "insert_after",
    "k_reciprocal_distances",
    "load",
    "ral_loss",
]

_MODULES = {
    "CompressedSelfAttention": "attention.layers",
    "SelfAttention": "attention.layers",
    "insert_after": "attention.insertion",
    "L2Net": "models.l2net",
    "PCB": "models.pcb",
    "hardnet_loss": "losses.hardnet",
    "ral_loss": "losses.ralnet",
    "calibrate_distances": "evaluation.calibration",
    "evaluate_distances": "evaluation.reid",
    "evaluate_reid": "evaluation.reid",
    "k_reciprocal_distances": "evaluation.rerank",
    "fpr95": "evaluation.verification",
    "Bundle": "inference.bundle",
    "Gallery": "search.gallery",
    "load": "inference.load",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'csametric' has no attribute {name!r}")
    return getattr(import_module(f"csametric.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
