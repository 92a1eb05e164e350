"""Distances and similarities of vectors, each with its direction and range.

Legend: N and M are numbers of vectors, D is their dimension. Unit vectors are expected where a docstring says so.
All are computed in fp32 or better with autocast disabled: in bf16, 2 - 2 a.b falls below zero under the root.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


def _dot_products(a_ND: Tensor, b_MD: Tensor) -> Tensor:
    with torch.autocast(a_ND.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(a_ND.dtype, b_MD.dtype), torch.float32)
        return a_ND.to(dtype) @ b_MD.to(dtype).T


def unit_euclidean_distances(a_ND: Tensor, b_MD: Tensor, epsilon: float = 0.0) -> Tensor:
    """Euclidean distances between unit vectors: sqrt(2 - 2 a.b + epsilon); lower is nearer.

    Args:
        a_ND: unit vectors, (N, D).
        b_MD: unit vectors, (M, D).
        epsilon: added under the root. HardNet (Mishchuk et al. 2017) trains with 1e-6, which keeps the gradient finite.

    Returns:
        (N, M), in [sqrt(epsilon), 2].

    Examples:
        >>> a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> unit_euclidean_distances(a, b)
        tensor([[0., 2.]])
    """
    return ((2 - 2 * _dot_products(a_ND, b_MD)).clamp(min=0) + epsilon).sqrt()


def euclidean_distances(a_ND: Tensor, b_MD: Tensor, epsilon: float = 0.0) -> Tensor:
    """Euclidean distances between vectors of any length: sqrt(|a|^2 + |b|^2 - 2 a.b + epsilon); lower is nearer.

    Computed by a matrix product, which is exact to rounding if the vectors are not far from 0.

    Args:
        a_ND: (N, D).
        b_MD: (M, D).
        epsilon: added under the root; above 0 it keeps the gradient finite.

    Returns:
        (N, M), at least sqrt(epsilon).

    Examples:
        >>> euclidean_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[5.]])
    """
    return (squared_euclidean_distances(a_ND, b_MD) + epsilon).sqrt()


def squared_euclidean_distances(a_ND: Tensor, b_MD: Tensor) -> Tensor:
    """Squared Euclidean distances between vectors of any length: |a|^2 + |b|^2 - 2 a.b; lower is nearer.

    Args:
        a_ND: (N, D).
        b_MD: (M, D).

    Returns:
        (N, M), at least 0.

    Examples:
        >>> squared_euclidean_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[25.]])
    """
    products = _dot_products(a_ND, b_MD)
    squares_a, squares_b = (x.to(products.dtype).square().sum(1) for x in (a_ND, b_MD))
    return (squares_a[:, None] + squares_b[None, :] - 2 * products).clamp(min=0)


def paired_distances(a_ND: Tensor, b_ND: Tensor) -> Tensor:
    """Euclidean distances between row i of one matrix and row i of the other; lower is nearer.

    Args:
        a_ND: (N, D).
        b_ND: (N, D).

    Returns:
        (N,), at least 0.

    Examples:
        >>> paired_distances(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 4.0], [1.0, 1.0]]))
        tensor([5., 0.])
    """
    return (a_ND.float() - b_ND.float()).norm(dim=1)


def angular_distances(a_ND: Tensor, b_MD: Tensor) -> Tensor:
    """Angular distances between unit vectors: 2 (1 - cosine); lower is nearer.

    RALNet's distance (Xu et al. 2019), which equals the squared Euclidean distance.

    Args:
        a_ND: unit vectors, (N, D).
        b_MD: unit vectors, (M, D).

    Returns:
        (N, M), in [0, 4].

    Examples:
        >>> angular_distances(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
        tensor([[2., 4.]])
    """
    return (2 - 2 * _dot_products(a_ND, b_MD)).clamp(min=0)


def cosine_similarities(a_ND: Tensor, b_MD: Tensor) -> Tensor:
    """Cosine similarities of vectors of any length; higher is nearer.

    Args:
        a_ND: (N, D).
        b_MD: (M, D).

    Returns:
        (N, M), in [-1, 1] up to rounding.

    Examples:
        >>> cosine_similarities(torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        tensor([[1., 0.]])
    """
    return _dot_products(functional.normalize(a_ND.float(), dim=1), functional.normalize(b_MD.float(), dim=1))


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A distance or similarity together with its direction."""

    name: str
    compute: Callable[[Tensor, Tensor], Tensor]  # (N, D), (M, D) -> (N, M)
    lower_is_nearer: bool  # true for a distance, false for a similarity

    def as_distance(self, a_ND: Tensor, b_MD: Tensor) -> Tensor:
        """Compare two sets of vectors; similarities are negated so that lower is always nearer.

        Args:
            a_ND: (N, D).
            b_MD: (M, D).

        Returns:
            (N, M).
        """
        values = self.compute(a_ND, b_MD)
        return values if self.lower_is_nearer else -values


EUCLIDEAN = Measure(name="euclidean distance", compute=euclidean_distances, lower_is_nearer=True)
UNIT_EUCLIDEAN = Measure(name="euclidean distance of unit vectors", compute=unit_euclidean_distances, lower_is_nearer=True)
ANGULAR = Measure(name="2(1 - cosine)", compute=angular_distances, lower_is_nearer=True)
COSINE = Measure(name="cosine similarity", compute=cosine_similarities, lower_is_nearer=False)

MEASURES = {"euclidean": EUCLIDEAN, "cosine": COSINE}
