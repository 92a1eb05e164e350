"""Compact features: the principal components of a model's features, fitted on its training images.

Legend: N images, D dimensions of a feature, K components, d dimensions of a compact feature.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save

from csametric.errors import UserError
from csametric.files import write_atomically

COMPACT = "compact.safetensors"
MAX_COMPONENTS = 1024
MAX_IMAGES = 8192  # to fit components on; this bounds the memory
ITERATIONS = 4  # of the randomised decomposition (Halko et al. 2011)


@dataclass(frozen=True, kw_only=True, eq=False)
class CompactFeatures:
    """A projection of features onto their principal components."""

    mean: NDArray  # float32 (D,)
    components: NDArray  # float32 (K, D), orthonormal rows, in order of decreasing variance
    deviations: NDArray  # float32 (K,), standard deviations of the projected training features

    def project(self, features: NDArray, dimensions: int, whiten: bool = False) -> NDArray:
        """Features (N, D) as compact features (N, dimensions), float32.

        Euclidean distances approximate those of the full features. Whitened features have unit length and the same
        variance in every dimension; their distances do not approximate those of the full features.

        Args:
            features: (N, D).
            dimensions: how many components to keep.
            whiten: whether to divide each component by its standard deviation.

        Raises:
            UserError: fewer components than `dimensions`.

        Examples:
            >>> features = np.array([[0.0, 0.0], [3.0, 0.1], [6.0, -0.1]], np.float32)
            >>> compact = fit_compact(features)
            >>> compact.project(features, 1).shape
            (3, 1)
        """
        self.check(dimensions)
        projected = (features - self.mean) @ self.components[:dimensions].T
        if not whiten:
            return projected
        whitened = projected / self.deviations[:dimensions]
        return whitened / np.maximum(np.linalg.norm(whitened, axis=1, keepdims=True), 1e-12)

    def check(self, dimensions: int) -> None:
        """Raise `UserError` unless at least `dimensions` components are stored."""
        if not 1 <= dimensions <= len(self.components):
            raise UserError(
                f"dimensions must be from 1 to {len(self.components):,}, the number of components fitted, got {dimensions:,}"
            )


def images_to_fit(number: int) -> NDArray:
    """Which of `number` training images to fit components on: evenly spread indices, at most `MAX_IMAGES`.

    Examples:
        >>> images_to_fit(3).tolist()
        [0, 1, 2]
    """
    return np.linspace(0, number - 1, min(number, MAX_IMAGES)).astype(int)


def fit_compact(features: NDArray) -> CompactFeatures:
    """Fit principal components, at most `MAX_COMPONENTS` and fewer than the number of images.

    Args:
        features: (N, D), of training images.

    Raises:
        UserError: fewer than two images.
    """
    if len(features) < 2:
        raise UserError(f"compact features need at least 2 training images, got {len(features)}")
    values_ND = torch.from_numpy(np.asarray(features, np.float32))
    mean_D = values_ND.mean(0)
    components = min(MAX_COMPONENTS, len(features) - 1, features.shape[1])
    candidates = min(components + 32, *features.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, scales, axes_DK = torch.svd_lowrank(values_ND - mean_D, q=candidates, niter=ITERATIONS)
    axes_KD = (
        axes_DK.T[:components].half().float()
    )  # as stored, so that results do not change when the model is saved and loaded
    deviations = (scales[:components] / (len(features) - 1) ** 0.5).clamp(min=1e-6)
    return CompactFeatures(
        mean=mean_D.numpy(), components=axes_KD.contiguous().numpy(), deviations=deviations.contiguous().numpy()
    )


def write_compact(folder: Path, compact: CompactFeatures) -> None:
    """Write compact.safetensors into a run or bundle, the components in 16 bits."""
    tensors = {
        "mean": torch.from_numpy(compact.mean),
        "components": torch.from_numpy(compact.components).half(),
        "deviations": torch.from_numpy(compact.deviations),
    }
    content = save(tensors)
    write_atomically(folder / COMPACT, lambda out: out.write(content))


def read_compact(folder: Path, dimensions: int) -> CompactFeatures | None:
    """The compact features of a run or bundle; None if it has none.

    Args:
        folder: the run or bundle.
        dimensions: D, of the model's features.

    Raises:
        UserError: the file is damaged, or belongs to another model.
    """
    path = folder / COMPACT
    if not path.is_file():
        return None
    try:
        tensors = {name: tensor.float() for name, tensor in load(path.read_bytes()).items()}
        mean, components, deviations = (tensors[name] for name in ("mean", "components", "deviations"))
        if mean.shape != (dimensions,) or components.shape != (len(deviations), dimensions):
            raise ValueError(f"it is for features of {components.shape[-1]} dimensions, not {dimensions}")
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise ValueError("a number is NaN or infinite")
    except (SafetensorError, ValueError, KeyError, IndexError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it to go on without compact features") from error
    return CompactFeatures(mean=mean.numpy(), components=components.numpy(), deviations=deviations.numpy())
