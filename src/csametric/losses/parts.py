"""The loss of part-based models: a cross-entropy for each part and each supervised stage."""

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
    """Sum the cross-entropies of the parts, plus lambda times those of the stages (Chen et al. 2020, equation 8).

    Args:
        logits: one (N, ids) per part.
        auxiliary: one (N, ids) per supervised stage; may be empty.
        ids_N: the true identities, int64 (N,).
        supervision_weight: lambda, 1 in the paper.
        label_smoothing: in [0, 1].
        average: whether to average over the parts instead of PCB's sum, as some public code does; the effective learning
            rate is then smaller.

    Returns:
        A scalar in fp32.

    Examples:
        >>> even = torch.zeros(1, 2)
        >>> parts_loss([even, even], [], torch.tensor([0]))  # 2 ln 2
        tensor(1.3863)
    """
    with torch.autocast(ids_N.device.type, enabled=False):
        loss = _sum_cross_entropies(logits, ids_N, label_smoothing)
        if average:
            loss = loss / len(logits)
        if auxiliary:
            loss = loss + supervision_weight * _sum_cross_entropies(auxiliary, ids_N, label_smoothing)
        return loss


def _sum_cross_entropies(logits: Sequence[Tensor], ids_N: Tensor, label_smoothing: float) -> Tensor:
    losses = [functional.cross_entropy(head_NI.float(), ids_N, label_smoothing=label_smoothing) for head_NI in logits]
    return torch.stack(losses).sum()
