"""The loss of part models: a cross-entropy for each part and each supervised stage."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def parts_loss(
    logits: Sequence[Tensor],
    auxiliary: Sequence[Tensor],
    ids_N: Tensor,
    supervision_weight: float = 1.0,
    label_smoothing: float = 0.0,
    average: bool = False,
) -> Tensor:
    """L = sum of the parts' cross-entropies + lambda * sum of the stages'; a scalar in fp32 (Chen et al. 2020, equation 8).

    Args:
        logits: of each part, (N, ids). auxiliary: of each supervised stage, (N, ids). ids_N: the true identities, int64.
        supervision_weight: lambda, 1 in the paper.
        average: the mean over the parts instead of PCB's sum: some public code, with a smaller effective learning rate.
    """
    with torch.autocast(ids_N.device.type, enabled=False):
        main = _cross_entropies(logits, ids_N, label_smoothing)
        main = main / len(logits) if average else main
        return main + supervision_weight * _cross_entropies(auxiliary, ids_N, label_smoothing) if auxiliary else main


def _cross_entropies(each: Sequence[Tensor], ids_N: Tensor, label_smoothing: float) -> Tensor:
    losses = [functional.cross_entropy(logits.float(), ids_N, label_smoothing=label_smoothing) for logits in each]
    return torch.stack(losses).sum()
