"""The exact reordering in plain operators: what `torch.compile` and ONNX trace.

Each base map sums to 1, so E = Wg (X B^T) + bg: the C -> C convolution over P positions becomes one over D columns.
Both memory formats are served without a copy of X; which operators do that best was measured (docs/decisions/0001).
"""

import torch
from torch import Tensor

from csametric.attention.reference import softmax_at_least_fp32


def compressed_self_attention(
    x_NCHW: Tensor,
    logit_weight: Tensor,
    value_weight: Tensor,
    alpha: Tensor,
    logit_bias: Tensor | None = None,
    value_bias: Tensor | None = None,
    groups: int = 1,
) -> Tensor:
    """O = X + alpha (Wg (X B^T) + bg) W, equal to equation (7), (N, C, H, W) in the memory format of the input.

    The arguments are those of `reference.compressed_self_attention`, all of one floating-point type.
    """
    form = _channels_last if is_channels_last(x_NCHW) else _channels_first
    return form(x_NCHW, logit_weight, alpha * value_weight, logit_bias, _scaled(alpha, value_bias), groups)


def is_channels_last(x_NCHW: Tensor) -> bool:
    """Whether channels lie side by side, in a slice too; False where both formats describe the tensor."""
    return x_NCHW.stride(1) == 1 and not x_NCHW.is_contiguous()


def _scaled(alpha: Tensor, bias: Tensor | None) -> Tensor | None:
    return None if bias is None else alpha * bias


def _channels_first(
    x_NCHW: Tensor,
    logit_weight: Tensor,
    value_weight: Tensor,
    logit_bias: Tensor | None,
    value_bias: Tensor | None,
    groups: int,
) -> Tensor:
    """All groups of all images in one batch of B = N*G matrices of c x P."""
    images = x_NCHW.shape[0]

    def for_each_image(parameter: Tensor) -> Tensor:
        rows_Grk = parameter.reshape(groups, parameter.shape[0] // groups, -1)
        return rows_Grk.expand(images, *rows_Grk.shape).flatten(0, 1)

    x_BcP = x_NCHW.flatten(2).unflatten(1, (groups, -1)).flatten(0, 1)
    logits_BDP = torch.bmm(for_each_image(logit_weight), x_BcP)
    if logit_bias is not None:
        logits_BDP = logits_BDP + for_each_image(logit_bias)
    gathered_BcD = torch.bmm(x_BcP, softmax_at_least_fp32(logits_BDP, 2).transpose(1, 2))
    elementary_BcD = torch.bmm(for_each_image(value_weight), gathered_BcD)
    if value_bias is not None:
        elementary_BcD = elementary_BcD + for_each_image(value_bias)
    return torch.baddbmm(x_BcP, elementary_BcD, softmax_at_least_fp32(logits_BDP, 1)).reshape(x_NCHW.shape)


def _channels_last(
    x_NCHW: Tensor,
    logit_weight: Tensor,
    value_weight: Tensor,
    logit_bias: Tensor | None,
    value_bias: Tensor | None,
    groups: int,
) -> Tensor:
    """One group after the other on slices P x c: a product over the strided slices needs no copy of X."""
    x_NPC = x_NCHW.permute(0, 2, 3, 1).flatten(1, 2)
    outputs_NPc = [
        _one_group_channels_last(*group)
        for group in zip(
            x_NPC.chunk(groups, 2),
            logit_weight.flatten(1).chunk(groups),
            value_weight.flatten(1).chunk(groups),
            [None] * groups if logit_bias is None else logit_bias.chunk(groups),
            [None] * groups if value_bias is None else value_bias.chunk(groups),
            strict=True,
        )
    ]
    output_NPC = outputs_NPc[0] if groups == 1 else torch.cat(outputs_NPc, 2)
    return output_NPC.unflatten(1, x_NCHW.shape[2:]).permute(0, 3, 1, 2)


def _one_group_channels_last(
    x_NPc: Tensor, logit_weight_Dc: Tensor, value_weight_cc: Tensor, logit_bias_D: Tensor | None, value_bias_c: Tensor | None
) -> Tensor:
    logits_NPD = torch.bmm(x_NPc, logit_weight_Dc.T.expand(x_NPc.shape[0], -1, -1))
    if logit_bias_D is not None:
        logits_NPD = logits_NPD + logit_bias_D
    gathered_NDc = torch.bmm(softmax_at_least_fp32(logits_NPD, 1).transpose(1, 2), x_NPc)
    elementary_NDc = gathered_NDc @ value_weight_cc.T
    if value_bias_c is not None:
        elementary_NDc = elementary_NDc + value_bias_c
    return torch.baddbmm(x_NPc, softmax_at_least_fp32(logits_NPD, 2), elementary_NDc)
