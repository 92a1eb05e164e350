"""The exact reordering in plain operators: what `torch.compile` and ONNX trace.

Each base map sums to 1, so E = Wg (X B^T) + bg: the C -> C convolution over P positions becomes one over D columns.
Neither memory format needs a copy of X; the operators are those that measured fastest (docs/decisions/0001).

Legend: N images, G groups of c = C/G channels, D maps per group, P = H*W positions, B = N*G.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from csametric.attention.reference import CSAWeights, softmax_at_least_fp32


def compressed_self_attention(x_NCHW: Tensor, weights: CSAWeights) -> Tensor:
    """O = X + alpha (Wg (X B^T) + bg) W, equal to equation (7), (N, C, H, W) in the memory format of the input.

    The weights are all of the input's floating-point type.
    """
    # alpha is folded into the values: one small product in place of one over all positions
    value_bias = None if weights.value_bias is None else weights.alpha * weights.value_bias
    folded = weights._replace(value_weight=weights.alpha * weights.value_weight, value_bias=value_bias)
    form = _channels_last if is_channels_last(x_NCHW) else _channels_first
    return form(x_NCHW, folded)


def is_channels_last(x_NCHW: Tensor) -> bool:
    """Whether channels lie side by side, in a slice too; False where both formats describe the tensor."""
    return x_NCHW.stride(1) == 1 and not x_NCHW.is_contiguous()


def differentiable_gradients(grad_NCHW: Tensor, x_NCHW: Tensor, weights: CSAWeights) -> tuple[Tensor | None, ...]:
    """The gradients of X and of every field of the weights in operators that can be differentiated again.

    The hand-written backwards take this for `create_graph=True`, as in gradient penalties. None for what needs no gradient.
    """
    arguments = (x_NCHW, *weights)
    wanted = [part for part in arguments if isinstance(part, Tensor) and part.requires_grad]
    out_NCHW = compressed_self_attention(x_NCHW, weights)
    gradients = iter(torch.autograd.grad(out_NCHW, wanted, grad_NCHW, create_graph=True))
    return tuple(next(gradients) if isinstance(part, Tensor) and part.requires_grad else None for part in arguments)


def _channels_first(x_NCHW: Tensor, weights: CSAWeights) -> Tensor:
    """All groups of all images in one batch of B = N*G matrices of c x P."""
    images, groups = x_NCHW.shape[0], weights.groups

    def for_each_image(parameter: Tensor) -> Tensor:
        rows_Grk = parameter.reshape(groups, parameter.shape[0] // groups, -1)
        return rows_Grk.expand(images, *rows_Grk.shape).flatten(0, 1)

    x_BcP = x_NCHW.flatten(2).unflatten(1, (groups, -1)).flatten(0, 1)
    logits_BDP = torch.bmm(for_each_image(weights.logit_weight), x_BcP)
    if weights.logit_bias is not None:
        logits_BDP = logits_BDP + for_each_image(weights.logit_bias)
    means_BcD = torch.bmm(x_BcP, softmax_at_least_fp32(logits_BDP, 2).transpose(1, 2))
    elementary_BcD = torch.bmm(for_each_image(weights.value_weight), means_BcD)
    if weights.value_bias is not None:
        elementary_BcD = elementary_BcD + for_each_image(weights.value_bias)
    return torch.baddbmm(x_BcP, elementary_BcD, softmax_at_least_fp32(logits_BDP, 1)).reshape(x_NCHW.shape)


def _channels_last(x_NCHW: Tensor, weights: CSAWeights) -> Tensor:
    """One group after the other on slices P x c: a product over the strided slices needs no copy of X."""
    x_NPC = x_NCHW.permute(0, 2, 3, 1).flatten(1, 2)
    groups = weights.groups
    outputs_NPc = [
        _one_group_channels_last(*group)
        for group in zip(
            x_NPC.chunk(groups, 2),
            weights.logit_weight.flatten(1).chunk(groups),
            weights.value_weight.flatten(1).chunk(groups),
            _chunks(weights.logit_bias, groups),
            _chunks(weights.value_bias, groups),
            strict=True,
        )
    ]
    output_NPC = outputs_NPc[0] if groups == 1 else torch.cat(outputs_NPc, 2)
    return output_NPC.unflatten(1, x_NCHW.shape[2:]).permute(0, 3, 1, 2)


def _chunks(bias: Tensor | None, groups: int) -> Sequence[Tensor | None]:
    return [None] * groups if bias is None else bias.chunk(groups)


def _one_group_channels_last(
    x_NPc: Tensor, logit_weight_Dc: Tensor, value_weight_cc: Tensor, logit_bias_D: Tensor | None, value_bias_c: Tensor | None
) -> Tensor:
    logits_NPD = torch.bmm(x_NPc, logit_weight_Dc.T.expand(x_NPc.shape[0], -1, -1))
    if logit_bias_D is not None:
        logits_NPD = logits_NPD + logit_bias_D
    means_NDc = torch.bmm(softmax_at_least_fp32(logits_NPD, 1).transpose(1, 2), x_NPc)
    elementary_NDc = means_NDc @ value_weight_cc.T
    if value_bias_c is not None:
        elementary_NDc = elementary_NDc + value_bias_c
    return torch.baddbmm(x_NPc, softmax_at_least_fp32(logits_NPD, 2), elementary_NDc)
