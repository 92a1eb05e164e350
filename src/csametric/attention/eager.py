"""The exact reordering in eager mode: plain operators, and a hand-written backward that recomputes the maps.

The backward keeps X, which its producer keeps anyway, and U = X B^T (C x D per image), but no value per position. Traced
programs (`torch.compile`, ONNX) take `reordered`, which leaves the choice of what to keep to the compiler.

A block is a view (B, c, P) of a feature map: all groups of all images in NCHW (B = N*G), one group of all images in
channels_last (B = N), where the channels of a position lie side by side. Results derived from a block are laid out as the
block is, so that neither memory format needs a copy.

Legend: N images, G groups of c channels, D maps per group, P = H*W positions, K = N*D.
"""

from typing import Any

import torch
from torch import Tensor

from csametric.attention.gradients import (
    elementary_gradients,
    elementary_outputs,
    group_matrices,
    join_images,
    split_images,
)
from csametric.attention.reference import CSAWeights, without_autocast
from csametric.attention.reordered import differentiable_gradients, is_channels_last

Blocks = tuple[Tensor, ...]  # the blocks of one feature map, each (B, c, P)


def compressed_self_attention(x_NCHW: Tensor, weights: CSAWeights) -> Tensor:
    """O = X + alpha (Wg (X B^T) + bg) W, equal to equation (7).

    Args:
        x_NCHW: (N, C, H, W), at least one value.
        weights: the layer's weights, all of the input's floating-point type.

    Returns:
        (N, C, H, W) in the input's memory format.
    """
    return _EagerCSA.apply(x_NCHW, *weights)[0]


class _EagerCSA(torch.autograd.Function):
    @staticmethod
    def forward(x_NCHW: Tensor, *weights: Any) -> tuple[Tensor, Tensor]:
        """O (N, C, H, W) and U (G, c, K)."""
        logit_weight, value_weight, alpha, logit_bias, value_bias, groups = weights
        channels_last = is_channels_last(x_NCHW)
        blocks = _blocks(x_NCHW, groups, channels_last)
        logits = _logits(blocks, logit_weight, logit_bias, groups)

        # [c, D] U = X B^T: the mean of X under each base map, equation (3)
        means = [block @ _rounded_softmax(m, 2).transpose(1, 2) for block, m in zip(blocks, logits, strict=True)]
        means_GcK = _join(means, groups)

        # [c, D] alpha E = alpha (Wg U + bg), equation (5) with the value convolution moved behind the sum
        elementary_GcK = alpha * elementary_outputs(means_GcK, group_matrices(value_weight, groups), value_bias)

        # [c, P] O = X + alpha E W, equations (6) and (7)
        out_NCHW = _empty(x_NCHW, channels_last)
        outs = _blocks(out_NCHW, groups, channels_last)
        for block, m, elementary, out in zip(blocks, logits, _split(elementary_GcK, blocks), outs, strict=True):
            _add_product(block, elementary, _rounded_softmax(m, 1), out)
        return out_NCHW, means_GcK

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, ctx.groups = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*tensors, output[1])

    @staticmethod
    def backward(ctx: Any, grad_NCHW: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, means_GcK = ctx.saved_tensors
        with without_autocast(grad_NCHW):
            x_NCHW, logit_weight, value_weight, alpha, logit_bias, value_bias = tensors
            weights = CSAWeights(logit_weight, value_weight, alpha, logit_bias, value_bias, ctx.groups)
            if torch.is_grad_enabled():  # the gradients will be differentiated
                return differentiable_gradients(grad_NCHW, x_NCHW, weights)
            return _backward(grad_NCHW, x_NCHW, weights, means_GcK)


def _backward(grad_NCHW: Tensor, x_NCHW: Tensor, weights: CSAWeights, means_GcK: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of X and of every field of the weights, None for biases that are absent and for the groups."""
    groups, channels_last = weights.groups, is_channels_last(x_NCHW)
    blocks, grads = _blocks(x_NCHW, groups, channels_last), _blocks(grad_NCHW, groups, channels_last)

    # [D, P] the logits, base maps and adaptive weights of the forward, formed again
    logits = _logits(blocks, weights.logit_weight, weights.logit_bias, groups)
    base_maps = [_softmax(m, 2) for m in logits]
    adaptive_weights = [_softmax(m, 1) for m in logits]

    # [c, D] dE = alpha dO W^T, and what follows from it without a feature map
    output_grads = [grad @ w.to(x_NCHW.dtype).transpose(1, 2) for grad, w in zip(grads, adaptive_weights, strict=True)]
    small = elementary_gradients(
        _join(output_grads, groups), means_GcK, weights.value_weight, weights.value_bias, weights.alpha
    )

    # [c, P] dX and [D, P] dM, block by block
    input_grad = _empty(x_NCHW, channels_last)
    logit_grads = [
        _block_gradient(*block_arguments)
        for block_arguments in zip(
            blocks,
            grads,
            base_maps,
            adaptive_weights,
            _split(small.elementary, blocks),
            _split(small.means, blocks),
            _per_block(weights.logit_weight, blocks, groups),
            _blocks(input_grad, groups, channels_last),
            strict=True,
        )
    ]

    # [D, c] gradient of the base vectors, dM X^T summed over images; [D] that of their biases
    products = [m_grad @ block.transpose(1, 2) for m_grad, block in zip(logit_grads, blocks, strict=True)]
    logit_weight_grad = _sum_images(products, groups).reshape(weights.logit_weight.shape)
    logit_bias_grad = value_bias_grad = None
    if weights.logit_bias is not None:
        logit_bias_grad = _sum_images([m_grad.sum(2) for m_grad in logit_grads], groups).flatten()
    if weights.value_bias is not None:
        value_bias_grad = small.value_bias
    return input_grad, logit_weight_grad, small.value_weight, small.alpha, logit_bias_grad, value_bias_grad, None


def _block_gradient(
    block_BcP: Tensor,
    grad_BcP: Tensor,
    base_maps_BDP: Tensor,
    adaptive_weights_BDP: Tensor,
    elementary_BcD: Tensor,
    mean_grad_BcD: Tensor,
    base_vectors_BDc: Tensor,
    out_BcP: Tensor,
) -> Tensor:
    """Write dX = dO + dU B + Wm^T dM of a block to `out_BcP`; return its dM, (B, D, P)."""
    # [D, P] dM: through the adaptive weights (softmax over D) and through the base maps (softmax over P)
    logit_grad = _softmax_backward(_product(elementary_BcD.transpose(1, 2), grad_BcP), adaptive_weights_BDP, 1)
    logit_grad += _softmax_backward(_product(mean_grad_BcD.transpose(1, 2), block_BcP), base_maps_BDP, 2)
    logit_grad = logit_grad.to(block_BcP.dtype)

    # [c, P] dX: the residual, then through U = X B^T, then through the logits M = Wm X
    _add_product(grad_BcP, mean_grad_BcD, base_maps_BDP.to(block_BcP.dtype), out_BcP)
    _add_product(out_BcP, base_vectors_BDc.transpose(1, 2), logit_grad, out_BcP)
    return logit_grad


def _empty(x_NCHW: Tensor, channels_last: bool) -> Tensor:
    return torch.empty_like(x_NCHW, memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _blocks(x_NCHW: Tensor, groups: int, channels_last: bool) -> Blocks:
    x_NCP = x_NCHW.flatten(2)
    return x_NCP.chunk(groups, 1) if channels_last else (x_NCP.unflatten(1, (groups, -1)).flatten(0, 1),)


def _logits(blocks: Blocks, weight: Tensor, bias: Tensor | None, groups: int) -> list[Tensor]:
    """M of each block, (B, D, P)."""
    logits = [_product(base, block) for base, block in zip(_per_block(weight, blocks, groups), blocks, strict=True)]
    if bias is not None:
        for block_logits, block_bias in zip(logits, _per_block(bias, blocks, groups), strict=True):
            block_logits.add_(block_bias)
    return logits


def _per_block(weight: Tensor, blocks: Blocks, groups: int) -> Blocks:
    """For each block the matrices of its groups, (B, D, c)."""
    weight_Grc = group_matrices(weight, groups)
    images = blocks[0].shape[0] * len(blocks) // groups
    if len(blocks) == 1:
        return (weight_Grc.expand(images, *weight_Grc.shape).flatten(0, 1),)
    return tuple(matrix.expand(images, -1, -1) for matrix in weight_Grc)


def _join(block_results: list[Tensor], groups: int) -> Tensor:
    """(B, c, D) of each block -> (G, c, K)."""
    if len(block_results) == 1:
        return join_images(block_results[0].unflatten(0, (-1, groups)))
    return join_images(torch.stack(block_results, 1))


def _split(joined_GcK: Tensor, blocks: Blocks) -> Blocks:
    """(G, c, K) -> (B, c, D) for each block."""
    images = blocks[0].shape[0] * len(blocks) // joined_GcK.shape[0]
    per_image_NGcD = split_images(joined_GcK, images)
    return (per_image_NGcD.flatten(0, 1),) if len(blocks) == 1 else per_image_NGcD.unbind(1)


def _sum_images(block_results: list[Tensor], groups: int) -> Tensor:
    """(B, ...) of each block -> (G, ...)."""
    if len(block_results) == 1:
        return block_results[0].unflatten(0, (-1, groups)).sum(0)
    return torch.stack([result.sum(0) for result in block_results])


def _columns_are_contiguous(matrices: Tensor) -> bool:
    """Whether columns and not rows are contiguous, as in a channels_last block."""
    return matrices.stride(1) == 1 and matrices.stride(2) != 1


def _product(a: Tensor, block: Tensor) -> Tensor:
    """The product a @ block, laid out as the block is."""
    if _columns_are_contiguous(block):
        return torch.bmm(block.transpose(1, 2), a.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(a, block)


def _add_product(start: Tensor, a: Tensor, b: Tensor, out: Tensor) -> None:
    """Write start + a @ b to `out`."""
    if _columns_are_contiguous(out):
        torch.baddbmm(start.transpose(1, 2), b.transpose(1, 2), a.transpose(1, 2), out=out.transpose(1, 2))
    else:
        torch.baddbmm(start, a, b, out=out)


def _rounded_softmax(logits: Tensor, dim: int) -> Tensor:
    """Softmax computed in fp32 or better and rounded once to the type of the logits.

    Along contiguous memory `torch.softmax` of a low-precision type does so by itself; across it the last few columns do not.
    """
    if logits.stride(dim) == 1:
        return _softmax(logits, dim, logits.dtype)
    return _softmax(logits, dim).to(logits.dtype)


def _softmax(logits: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Softmax in fp32 or better, unless another type is asked for."""
    dtype = dtype or torch.promote_types(logits.dtype, torch.float32)
    if _columns_are_contiguous(logits):
        return logits.transpose(1, 2).softmax(3 - dim, dtype=dtype).transpose(1, 2)
    return logits.softmax(dim, dtype=dtype)


def _softmax_backward(grad: Tensor, softmax: Tensor, dim: int) -> Tensor:
    grad = grad.to(softmax.dtype)
    if _columns_are_contiguous(softmax):
        transposed = grad.transpose(1, 2), softmax.transpose(1, 2)
        return torch._softmax_backward_data(*transposed, 3 - dim, softmax.dtype).transpose(1, 2)
    return torch._softmax_backward_data(grad, softmax, dim, softmax.dtype)
