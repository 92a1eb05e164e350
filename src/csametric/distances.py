"""Every distance and similarity the project uses, with its direction and range, once.

Legend: N, M numbers of vectors, D their dimension. Unit vectors are expected where a docstring says so.
All of them compute in at least fp32 with autocast off: 2 - 2a.p in bf16 falls below zero under the root.
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
    """Euclidean distances of unit vectors, (N, M), in [sqrt(epsilon), 2]; lower is nearer.

    d = sqrt(2 - 2 a.b + epsilon); HardNet (Mishchuk et al. 2017) trains with epsilon = 1e-6, which keeps the root's
    gradient finite.
    """
    return ((2 - 2 * _dot_products(a_ND, b_MD)).clamp(min=0) + epsilon).sqrt()


def euclidean_distances(a_ND: Tensor, b_MD: Tensor, epsilon: float = 0.0) -> Tensor:
    """Euclidean distances of vectors of any length, (N, M), at least sqrt(epsilon); lower is nearer.

    d = sqrt(|a|^2 + |b|^2 - 2 a.b + epsilon): a matrix product, exact to rounding where the vectors are not far from 0.
    """
    return (squared_euclidean_distances(a_ND, b_MD) + epsilon).sqrt()


def squared_euclidean_distances(a_ND: Tensor, b_MD: Tensor) -> Tensor:
    """|a|^2 + |b|^2 - 2 a.b of vectors of any length, (N, M), at least 0; lower is nearer."""
    products = _dot_products(a_ND, b_MD)
    squares_a, squares_b = (x.to(products.dtype).square().sum(1) for x in (a_ND, b_MD))
    return (squares_a[:, None] + squares_b[None, :] - 2 * products).clamp(min=0)


def paired_distances(a_ND: Tensor, b_ND: Tensor) -> Tensor:
    """Euclidean distances of row i of one to row i of the other, (N,), at least 0; lower is nearer."""
    return (a_ND.float() - b_ND.float()).norm(dim=1)


def angular_distances(a_ND: Tensor, b_MD: Tensor) -> Tensor:
    """Twice one minus the cosine of unit vectors, (N, M), in [0, 4]; lower is nearer.

    The squared Euclidean distance of unit vectors, RALNet's measure (Xu et al. 2019).
    """
    return (2 - 2 * _dot_products(a_ND, b_MD)).clamp(min=0)


def cosine_similarities(a_ND: Tensor, b_MD: Tensor) -> Tensor:
    """Cosines of vectors of any length, (N, M), in [-1, 1] up to rounding; higher is nearer."""
    return _dot_products(functional.normalize(a_ND.float(), dim=1), functional.normalize(b_MD.float(), dim=1))


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A way to compare two sets of vectors; the direction is part of the type."""

    name: str
    compare: Callable[[Tensor, Tensor], Tensor]
    lower_is_nearer: bool

    def as_distance(self, a_ND: Tensor, b_MD: Tensor) -> Tensor:
        """The comparison with its sign set so that lower is nearer, (N, M)."""
        compared = self.compare(a_ND, b_MD)
        return compared if self.lower_is_nearer else -compared


EUCLIDEAN = Measure(name="euclidean distance", compare=euclidean_distances, lower_is_nearer=True)
UNIT_EUCLIDEAN = Measure(name="euclidean distance of unit vectors", compare=unit_euclidean_distances, lower_is_nearer=True)
ANGULAR = Measure(name="2(1 - cosine)", compare=angular_distances, lower_is_nearer=True)
COSINE = Measure(name="cosine similarity", compare=cosine_similarities, lower_is_nearer=False)

MEASURES = {"euclidean": EUCLIDEAN, "cosine": COSINE}
