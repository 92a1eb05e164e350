"""The exact reordering in eager mode: plain operators, and a backward that forms the maps again instead of keeping them.

Kept for the backward: X, which its producer keeps anyway, and U = X B^T (C x D an image). What is traced
(`torch.compile`, ONNX) takes `reordered`, which leaves this choice to the compiler.

A block is a view (B, c, P) of a feature map: all groups of all images in NCHW (B = N*G), one group of all images in
channels_last (B = N), where positions lie c apart. What is made of a block lies as the block does: no copies for either.

Legend: N images, G groups of c channels, D maps a group, P = H*W positions, K = N*D.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from csametric.attention import reordered
from csametric.attention.gradients import elementary_gradients, elementary_outputs, grouped, image_by_image, side_by_side
from csametric.attention.reference import without_autocast
from csametric.attention.reordered import is_channels_last


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

    The arguments are those of `reference.compressed_self_attention`, all of one floating-point type. Differentiable once.
    """
    arguments = (x_NCHW, logit_weight, value_weight, alpha, logit_bias, value_bias, groups)
    if torch.compiler.is_compiling() or not x_NCHW.numel():
        return reordered.compressed_self_attention(*arguments)
    return _Recomputed.apply(*arguments)[0]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        x_NCHW: Tensor,
        logit_weight: Tensor,
        value_weight: Tensor,
        alpha: Tensor,
        logit_bias: Tensor | None,
        value_bias: Tensor | None,
        groups: int,
    ) -> tuple[Tensor, Tensor]:
        """O (N, C, H, W) and U (G, c, K)."""
        turned = is_channels_last(x_NCHW)
        blocks = _blocks(x_NCHW, groups, turned)
        logits = _logits(blocks, logit_weight, logit_bias, groups)
        gathered = [block @ _rounded_softmax(each, 2).transpose(1, 2) for block, each in zip(blocks, logits, strict=True)]
        means_GcK = _join(gathered, groups)
        elementary_GcK = alpha * elementary_outputs(means_GcK, grouped(value_weight, groups), value_bias)
        out_NCHW = _empty(x_NCHW, turned)
        outs = _blocks(out_NCHW, groups, turned)
        for block, each, elementary, out in zip(blocks, logits, _split(elementary_GcK, blocks), outs, strict=True):
            _add_product(block, elementary, _rounded_softmax(each, 1), out)
        return out_NCHW, means_GcK

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, ctx.groups = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*tensors, output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NCHW: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x_NCHW, logit_weight, value_weight, alpha, logit_bias, value_bias, means_GcK = ctx.saved_tensors
        groups, dtype = ctx.groups, x_NCHW.dtype
        with without_autocast(x_NCHW):
            turned = is_channels_last(x_NCHW)
            blocks, incoming = _blocks(x_NCHW, groups, turned), _blocks(gradient_NCHW, groups, turned)
            logits = _logits(blocks, logit_weight, logit_bias, groups)
            attention = [_softmax(each, 2) for each in logits]
            weights = [_softmax(each, 1) for each in logits]
            small = elementary_gradients(
                _join([come @ each.to(dtype).transpose(1, 2) for come, each in zip(incoming, weights, strict=True)], groups),
                means_GcK,
                value_weight,
                value_bias,
                alpha,
            )
            input_gradient = _empty(x_NCHW, turned)
            logit_gradients = [
                _block_gradient(*each)
                for each in zip(
                    blocks,
                    incoming,
                    attention,
                    weights,
                    _split(small.elementary, blocks),
                    _split(small.means, blocks),
                    _weights_of(logit_weight, blocks, groups),
                    _blocks(input_gradient, groups, turned),
                    strict=True,
                )
            ]
            base_gradient = _sum_images(
                [each @ block.transpose(1, 2) for each, block in zip(logit_gradients, blocks, strict=True)], groups
            )
            bias_gradient = None if logit_bias is None else _sum_images([each.sum(2) for each in logit_gradients], groups)
        return (
            input_gradient,
            base_gradient.reshape(logit_weight.shape),
            small.value_weight,
            small.alpha,
            bias_gradient if bias_gradient is None else bias_gradient.flatten(),
            None if value_bias is None else small.value_bias,
            None,
        )


def _block_gradient(
    block_BcP: Tensor,
    incoming_BcP: Tensor,
    attention_BDP: Tensor,
    weights_BDP: Tensor,
    elementary_BcD: Tensor,
    mean_gradient_BcD: Tensor,
    base_BDc: Tensor,
    out_BcP: Tensor,
) -> Tensor:
    """Writes dX = dO + dU B + Wm^T dM of a block to `out_BcP`; returns its dM, (B, D, P)."""
    logit_gradient = _softmax_backward(_product(elementary_BcD.transpose(1, 2), incoming_BcP), weights_BDP, 1)
    logit_gradient += _softmax_backward(_product(mean_gradient_BcD.transpose(1, 2), block_BcP), attention_BDP, 2)
    logit_gradient = logit_gradient.to(block_BcP.dtype)
    _add_product(incoming_BcP, mean_gradient_BcD, attention_BDP.to(block_BcP.dtype), out_BcP)
    _add_product(out_BcP, base_BDc.transpose(1, 2), logit_gradient, out_BcP)
    return logit_gradient


def _empty(x_NCHW: Tensor, turned: bool) -> Tensor:
    return torch.empty_like(x_NCHW, memory_format=torch.channels_last if turned else torch.contiguous_format)


def _blocks(x_NCHW: Tensor, groups: int, turned: bool) -> tuple[Tensor, ...]:
    x_NCP = x_NCHW.flatten(2)
    return x_NCP.chunk(groups, 1) if turned else (x_NCP.unflatten(1, (groups, -1)).flatten(0, 1),)


def _is_turned(matrices: Tensor) -> bool:
    """Whether columns and not rows are contiguous."""
    return matrices.stride(1) == 1 and matrices.stride(2) != 1


def _logits(blocks: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None, groups: int) -> list[Tensor]:
    """M of each block, (B, D, P)."""
    products = [_product(base, block) for base, block in zip(_weights_of(weight, blocks, groups), blocks, strict=True)]
    if bias is None:
        return products
    biases = _weights_of(bias, blocks, groups)
    return [product.add_(each) for product, each in zip(products, biases, strict=True)]


def _weights_of(weight: Tensor, blocks: tuple[Tensor, ...], groups: int) -> tuple[Tensor, ...]:
    """For each block the matrices of its groups, (B, D, c)."""
    weight_Grc = grouped(weight, groups)
    images = blocks[0].shape[0] * len(blocks) // groups
    if len(blocks) == 1:
        return (weight_Grc.expand(images, *weight_Grc.shape).flatten(0, 1),)
    return tuple(each.expand(images, -1, -1) for each in weight_Grc)


def _join(of_blocks: list[Tensor], groups: int) -> Tensor:
    """(B, c, D) of each block -> (G, c, K)."""
    return side_by_side(of_blocks[0].unflatten(0, (-1, groups)) if len(of_blocks) == 1 else torch.stack(of_blocks, 1))


def _split(joined_GcK: Tensor, blocks: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(G, c, K) -> (B, c, D) for each block."""
    images = blocks[0].shape[0] * len(blocks) // joined_GcK.shape[0]
    of_images_NGcD = image_by_image(joined_GcK, images)
    return (of_images_NGcD.flatten(0, 1),) if len(blocks) == 1 else of_images_NGcD.unbind(1)


def _sum_images(of_blocks: list[Tensor], groups: int) -> Tensor:
    """(B, ...) of each block -> (G, ...)."""
    if len(of_blocks) == 1:
        return of_blocks[0].unflatten(0, (-1, groups)).sum(0)
    return torch.stack([each.sum(0) for each in of_blocks])


def _product(a: Tensor, block: Tensor) -> Tensor:
    """The product a @ block, laid out as the block lies."""
    if _is_turned(block):
        return torch.bmm(block.transpose(1, 2), a.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(a, block)


def _add_product(start: Tensor, a: Tensor, b: Tensor, out: Tensor) -> None:
    """Writes start + a @ b to `out`."""
    if _is_turned(out):
        torch.baddbmm(start.transpose(1, 2), b.transpose(1, 2), a.transpose(1, 2), out=out.transpose(1, 2))
    else:
        torch.baddbmm(start, a, b, out=out)


def _rounded_softmax(logits: Tensor, dim: int) -> Tensor:
    """Computed in fp32 or better, rounded once to the type of the logits.

    Along contiguous memory `torch.softmax` of a low type does so by itself; across it the last few columns do not.
    """
    if logits.stride(dim) == 1:
        return _softmax(logits, dim, logits.dtype)
    return _softmax(logits, dim).to(logits.dtype)


def _softmax(logits: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """In fp32 or better, unless another type is asked for."""
    dtype = dtype or torch.promote_types(logits.dtype, torch.float32)
    if _is_turned(logits):
        return logits.transpose(1, 2).softmax(3 - dim, dtype=dtype).transpose(1, 2)
    return logits.softmax(dim, dtype=dtype)


def _softmax_backward(gradient: Tensor, softmax: Tensor, dim: int) -> Tensor:
    gradient = gradient.to(softmax.dtype)
    if _is_turned(softmax):
        turned = gradient.transpose(1, 2), softmax.transpose(1, 2)
        return torch._softmax_backward_data(*turned, 3 - dim, softmax.dtype).transpose(1, 2)
    return torch._softmax_backward_data(gradient, softmax, dim, softmax.dtype)
