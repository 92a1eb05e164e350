"""Compressed self-attention as loops over positions and maps, straight from equations (3) to (5), in float64."""

import math

from torch import Tensor


def attention_map(x_CP: Tensor, vectors_DC: Tensor, i: int) -> list[float]:
    """A_i of equation (4): sum over k of f_b(v_k, I_j) w(v_k, I_i)."""
    positions, maps = x_CP.shape[1], len(vectors_DC)
    scores = [[float(vectors_DC[k] @ x_CP[:, j]) for j in range(positions)] for k in range(maps)]
    highest = max(max(row) for row in scores)
    weight_total = sum(math.exp(scores[k][i] - highest) for k in range(maps))
    row = [0.0] * positions
    for k in range(maps):
        map_total = sum(math.exp(score - highest) for score in scores[k])
        weight = math.exp(scores[k][i] - highest) / weight_total
        for j in range(positions):
            row[j] += math.exp(scores[k][j] - highest) / map_total * weight
    return row


def compressed_self_attention(x_CHW: Tensor, vectors_DC: Tensor, values_CC: Tensor, alpha: float) -> Tensor:
    """O_i = I_i + alpha sum_j A_ij Wg I_j, one image, one group, with the dense P x P map of equation (4)."""
    x_CP = x_CHW.flatten(1).double()
    out = x_CP.clone()
    for i in range(x_CP.shape[1]):
        row = attention_map(x_CP, vectors_DC.double(), i)
        for j, share in enumerate(row):
            out[:, i] += alpha * share * (values_CC.double() @ x_CP[:, j])
    return out.reshape(x_CHW.shape)
