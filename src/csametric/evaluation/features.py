"""Convert features to what the metrics use: finite fp32 tensors on the CPU."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from csametric.errors import UserError

Array = ArrayLike | Tensor


def finite_tensor(features: Array) -> Tensor:
    """Features (N, D) as an fp32 tensor on the CPU; a memory-mapped array is loaded into memory.

    Raises:
        UserError: some values are NaN or infinite.

    Examples:
        >>> finite_tensor([[1, 2]])
        tensor([[1., 2.]])
    """
    tensor = features.detach().cpu() if isinstance(features, Tensor) else torch.from_numpy(np.array(features))
    tensor = tensor.float()
    if not tensor.isfinite().all():
        raise UserError("some features are NaN or infinite; check the model that computed them")
    return tensor
