"""The exact reordering in fused kernels, registered with PyTorch: for eager, autocast, `torch.compile` and CUDA graphs.

The backward keeps X, U (G, c, K) and the logarithm of each map's softmax denominator, and recomputes the maps.
Sums over splits of the positions run in a fixed order, without atomics: two runs agree to the bit.

Legend: N images, G groups of c channels, P = H*W positions, D maps per group, S splits of the positions, K = N*D columns.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from csametric.attention import kernels
from csametric.attention.gradients import elementary_gradients, elementary_outputs, group_matrices
from csametric.attention.reference import CSAWeights, without_autocast
from csametric.attention.reordered import differentiable_gradients

MAX_MAPS = 128  # per group
ACCUMULATED = 16384  # values of U that a program of 8 warps holds in registers: the most that does not spill on an sm_90
ACCUMULATED_BESIDE_GRADIENTS = 8192  # the same for the program that also holds two logit gradients
MAX_CHANNELS = 512  # per program
OLDEST = (8, 0)  # compute capability; older GPUs have too little shared memory
PROGRAMS_PER_PROCESSOR = 4
INTERPRETER_SPLITS = 2
TYPES = (torch.float32, torch.float16, torch.bfloat16)


def compressed_self_attention(x_NCHW: Tensor, weights: CSAWeights) -> Tensor:
    """O = X + alpha (Wg (X B^T) + bg) W, equal to equation (7), (N, C, H, W) in the memory format of the input.

    Input and weights are all of one type of `TYPES`.
    """
    return _forward(x_NCHW, *weights)[0]


def why_not(x_NCHW: Tensor, maps: int) -> str:
    """Why the kernels cannot run on an input, as a sentence; "" if they can."""
    if not (x_NCHW.is_cuda or interpreted()):
        return f"the fused kernels need a CUDA device, the input is on {x_NCHW.device.type}"
    if x_NCHW.is_cuda and (obstacle := _obstacle_on_device(x_NCHW.device)):
        return obstacle
    if x_NCHW.dtype not in TYPES:
        return f"the fused kernels take fp32, fp16 and bf16, the input is {x_NCHW.dtype}"
    if maps > MAX_MAPS:
        return f"the fused kernels take up to {MAX_MAPS} maps per group, the layer has {maps}"
    return ""


def _obstacle_on_device(device: torch.device) -> str:
    if torch.compiler.is_compiling():  # a compiler starts Triton's driver itself; it cannot trace the start, nor a cache
        return _obstacle_in_hardware(device)
    return _obstacle_in_eager_mode(device)


def _obstacle_in_hardware(device: torch.device) -> str:
    if torch.version.hip:
        return "the fused kernels need an NVIDIA GPU"
    if torch.cuda.get_device_capability(device) < OLDEST:
        return f"the fused kernels need compute capability {'.'.join(map(str, OLDEST))} or later"
    return ""


@cache
def _obstacle_in_eager_mode(device: torch.device) -> str:
    if obstacle := _obstacle_in_hardware(device):
        return obstacle
    try:
        triton.runtime.driver.active.get_current_device()
    except Exception as error:  # its first call compiles C, which fails in as many ways as there are systems
        return f"triton cannot start on this machine ({error})"
    return ""


def interpreted() -> bool:
    """Whether Triton runs its programs on the CPU, one after the other (TRITON_INTERPRET=1 when they were imported)."""
    return not isinstance(kernels.gather, triton.runtime.JITFunction)


class _Sizes(NamedTuple):
    images: int  # N
    groups: int  # G
    channels: int  # c, per group
    maps: int  # D, per group
    positions: int  # P

    @property
    def pairs(self) -> int:
        return self.images * self.groups

    @property
    def columns(self) -> int:
        return self.images * self.maps  # K


class _Blocks(NamedTuple):
    maps: int  # BLOCK_D, all maps of a group
    channels: int  # BLOCK_C, the channels whose sums one program accumulates
    step: int  # BLOCK_K, the channels read at a time for the logits
    positions: int  # BLOCK_P, positions per tile
    stages: int  # of software pipelining
    splits: int  # S
    tiles_per_split: int


def _sizes(x_NCHW: Tensor, logit_weight: Tensor, groups: int) -> _Sizes:
    images, channels, height, width = x_NCHW.shape
    return _Sizes(images, groups, channels // groups, logit_weight.shape[0] // groups, height * width)


def _blocks(sizes: _Sizes, x_NCHW: Tensor, accumulated: int) -> _Blocks:
    """Tiles that fit the registers and 99 KiB of shared memory, the least that GPUs since 2020 give one program."""
    maps, all_channels = (max(16, triton.next_power_of_2(count)) for count in (sizes.maps, sizes.channels))
    wide = x_NCHW.element_size() > 2
    channels = min(all_channels, MAX_CHANNELS, accumulated // (4 * maps if wide else maps))
    step, positions = min(32 if wide else 64, all_channels), 32 if wide or maps > 32 else 64
    tiles, programs = triton.cdiv(sizes.positions, positions), sizes.pairs * triton.cdiv(sizes.channels, channels)
    tiles_per_split = triton.cdiv(tiles, max(1, min(tiles, _wanted_programs(x_NCHW.device, programs) // programs)))
    stages = 1 if wide or maps > 64 else 2
    return _Blocks(maps, channels, step, positions, stages, triton.cdiv(tiles, tiles_per_split), tiles_per_split)


def _wanted_programs(device: torch.device, programs: int) -> int:
    if device.type != "cuda":
        return INTERPRETER_SPLITS * programs
    return PROGRAMS_PER_PROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count


def _options(x_NCHW: Tensor, blocks: _Blocks, bias: Tensor | None, flat: bool | None = None) -> dict[str, Any]:
    options = {
        "HAS_BIAS": bias is not None,
        "BLOCK_D": blocks.maps,
        "BLOCK_K": blocks.step,
        "PRECISION": "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee",
        "UPCAST": interpreted(),
        "num_warps": 8,
        "num_stages": blocks.stages,
        "enable_fp_fusion": True,
    }
    return options if flat is None else options | {"FLAT": flat, "BLOCK_P": blocks.positions}


def _grid(sizes: _Sizes, blocks: _Blocks) -> tuple[int]:
    return (blocks.splits * triton.cdiv(sizes.channels, blocks.channels) * sizes.pairs,)


def _as_read(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Contiguous tensors; the weight stands in for an absent bias, because a kernel needs a pointer."""
    weight = weight.contiguous()
    return weight, weight if bias is None else bias.contiguous()


def _float(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.float()


@contextmanager
def _tensor_cores_for(dtype: torch.dtype) -> Iterator[None]:
    """Let products of fp32 matrices run in TF32 for inputs in 16-bit types, which are no more precise than TF32."""
    before = torch.backends.cuda.matmul.fp32_precision
    if dtype != torch.float32:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def _is_flat(*tensors: Tensor) -> bool:
    return all(x.stride(2) == x.shape[3] * x.stride(3) for x in tensors)


def _empty_fp32(x_NCHW: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=x_NCHW.device)


@torch.library.custom_op("csametric::fused_forward", mutates_args=())
def _forward(
    x_NCHW: Tensor,
    logit_weight: Tensor,
    value_weight: Tensor,
    alpha: Tensor,
    logit_bias: Tensor | None,
    value_bias: Tensor | None,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """O; U (G, c, K) and the logarithm of each softmax's denominator (N, G, D), both fp32."""
    if not x_NCHW.numel():
        return _empty_results(x_NCHW, _sizes(x_NCHW, logit_weight, groups))
    with torch.cuda.device_of(x_NCHW):
        sizes = _sizes(x_NCHW, logit_weight, groups)
        blocks = _blocks(sizes, x_NCHW, ACCUMULATED)
        out, means, log_totals = _empty_results(x_NCHW, sizes)
        gathered = _empty_fp32(x_NCHW, sizes.pairs, blocks.splits, sizes.channels, sizes.maps)
        highest, total = (_empty_fp32(x_NCHW, sizes.pairs, blocks.splits, sizes.maps) for _ in range(2))
        base, bias = _as_read(logit_weight, logit_bias)
        flat, width = _is_flat(x_NCHW, out), x_NCHW.shape[3]
        counts = (groups, sizes.channels, sizes.maps)
        # [c, D] sums of X under each map's exponentials, per split of the positions
        kernels.gather[_grid(sizes, blocks)](
            x_NCHW, base, bias, gathered, highest, total,
            *x_NCHW.stride(), width, *counts, sizes.positions, blocks.splits, blocks.tiles_per_split,
            BLOCK_C=blocks.channels, **_options(x_NCHW, blocks, logit_bias, flat),
        )  # fmt: skip
        # [c, D] the splits joined to U, then alpha E = alpha (Wg U + bg)
        _join(sizes, blocks, gathered, means, (highest, total, log_totals))
        with _tensor_cores_for(x_NCHW.dtype):
            outputs = elementary_outputs(means, group_matrices(value_weight.float(), groups), _float(value_bias))
        elementary = torch.mul(outputs, alpha, out=torch.empty_like(outputs, dtype=x_NCHW.dtype))
        # [c, P] O = X + alpha E W
        kernels.scatter[(triton.cdiv(sizes.positions, blocks.positions) * sizes.pairs,)](
            x_NCHW, base, bias, elementary, out,
            *x_NCHW.stride(), *out.stride(), width, *counts, sizes.columns, sizes.positions,
            **_options(x_NCHW, blocks, logit_bias, flat),
        )  # fmt: skip
        return out, means, log_totals


def _join(
    sizes: _Sizes, blocks: _Blocks, gathered: Tensor, joined: Tensor, softmax: tuple[Tensor, Tensor, Tensor] | None = None
) -> None:
    """Add up the splits of a gather, to (G, c, K).

    `softmax`: the maximum and denominator of every split, and where to write the logarithms of the common denominators.
    """
    highest, total, log_totals = softmax or (gathered, gathered, gathered)  # a kernel needs pointers
    kernels.join[(triton.cdiv(sizes.channels, blocks.step) * sizes.pairs,)](
        gathered, highest, total, joined, log_totals,
        sizes.groups, sizes.channels, sizes.maps, sizes.columns, blocks.splits,
        IS_SOFTMAX=softmax is not None, BLOCK_D=blocks.maps, BLOCK_K=blocks.step, enable_fp_fusion=True,
    )  # fmt: skip


def _empty_results(x_NCHW: Tensor, sizes: _Sizes) -> tuple[Tensor, Tensor, Tensor]:
    means = _empty_fp32(x_NCHW, sizes.groups, sizes.channels, sizes.columns)
    return torch.empty_like(x_NCHW), means, _empty_fp32(x_NCHW, sizes.images, sizes.groups, sizes.maps)


@_forward.register_fake
def _fake_forward(x_NCHW, logit_weight, value_weight, alpha, logit_bias, value_bias, groups):  # type: ignore[no-untyped-def]
    return _empty_results(x_NCHW, _sizes(x_NCHW, logit_weight, groups))


@torch.library.custom_op("csametric::fused_backward", mutates_args=())
def _backward(
    gradient_NCHW: Tensor,
    x_NCHW: Tensor,
    means: Tensor,
    log_totals: Tensor,
    logit_weight: Tensor,
    value_weight: Tensor,
    alpha: Tensor,
    logit_bias: Tensor | None,
    value_bias: Tensor | None,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of X, both weights, alpha and both biases."""
    if not x_NCHW.numel():
        tensors = (gradient_NCHW, x_NCHW, means, log_totals, logit_weight, value_weight, alpha, logit_bias, value_bias)
        return tuple(grad.zero_() for grad in _fake_backward(*tensors, groups))
    with torch.cuda.device_of(x_NCHW):
        sizes = _sizes(x_NCHW, logit_weight, groups)
        blocks = _blocks(sizes, x_NCHW, ACCUMULATED)
        input_gradient = torch.empty_like(x_NCHW)
        flat, width = _is_flat(x_NCHW, gradient_NCHW, input_gradient), x_NCHW.shape[3]
        base, bias = _as_read(logit_weight, logit_bias)
        counts = (width, groups, sizes.channels, sizes.maps)
        gathered = _empty_fp32(x_NCHW, sizes.pairs, blocks.splits, sizes.channels, sizes.maps)
        # [c, D] dO W^T, per split of the positions
        kernels.gather_gradient[_grid(sizes, blocks)](
            x_NCHW, gradient_NCHW, base, bias, gathered, *x_NCHW.stride(), *gradient_NCHW.stride(),
            *counts, sizes.positions, blocks.splits, blocks.tiles_per_split,
            BLOCK_C=blocks.channels, **_options(x_NCHW, blocks, logit_bias, flat),
        )  # fmt: skip
        output_grad = torch.empty_like(means)
        _join(sizes, blocks, gathered, output_grad)

        # [c, D] what follows without a feature map: alpha E, dU and delta, the sum over channels of dU * U
        with _tensor_cores_for(x_NCHW.dtype):
            small = elementary_gradients(output_grad, means, value_weight.float(), _float(value_bias), alpha.float())
        # delta comes from the rounded dU that the kernel reads: it must cancel the mean of dB = dU^T X under each base map
        elementary, mean_gradient = small.elementary.to(x_NCHW.dtype), small.means.to(x_NCHW.dtype)
        delta = (mean_gradient.float() * means).sum(1)

        # [c, P] dX = dO + dU B + Wm^T dM; [D, c] dM X^T and [D] the sum of dM, per split
        blocks = _blocks(sizes, x_NCHW, ACCUMULATED_BESIDE_GRADIENTS)
        base_gradient = _empty_fp32(x_NCHW, sizes.pairs, blocks.splits, sizes.maps, sizes.channels)
        bias_gradient = _empty_fp32(x_NCHW, sizes.pairs, blocks.splits, sizes.maps)
        kernels.input_gradient[_grid(sizes, blocks)](
            x_NCHW, gradient_NCHW, base, bias, elementary, log_totals, mean_gradient, delta,
            input_gradient, base_gradient, bias_gradient,
            *x_NCHW.stride(), *gradient_NCHW.stride(), *input_gradient.stride(),
            *counts, sizes.columns, sizes.positions, blocks.splits, blocks.tiles_per_split,
            BLOCK_C=blocks.channels, **_options(x_NCHW, blocks, logit_bias, flat),
        )  # fmt: skip

        # the splits and images summed in a fixed order
        logit_gradient = base_gradient.unflatten(0, (-1, groups)).sum((0, 2)).reshape(logit_weight.shape)
        logit_bias_gradient = bias_gradient.unflatten(0, (-1, groups)).sum((0, 2)).flatten()
        small_gradients = (logit_gradient, small.value_weight, small.alpha, logit_bias_gradient, small.value_bias)
        return input_gradient, *(gradient.to(x_NCHW.dtype) for gradient in small_gradients)  # type: ignore[return-value]


@_backward.register_fake
def _fake_backward(gradient_NCHW, x_NCHW, means, log_totals, logit_weight, value_weight, alpha, logit_bias, value_bias, groups):  # type: ignore[no-untyped-def]
    return (
        torch.empty_like(x_NCHW),
        torch.empty_like(logit_weight, memory_format=torch.contiguous_format),
        torch.empty_like(value_weight, memory_format=torch.contiguous_format),
        torch.empty_like(alpha),
        x_NCHW.new_empty(logit_weight.shape[0]),
        x_NCHW.new_empty(value_weight.shape[0]),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, logit_weight, value_weight, alpha, logit_bias, value_bias, ctx.groups = inputs
    ctx.save_for_backward(x, *output[1:], logit_weight, value_weight, alpha, logit_bias, value_bias)


def _differentiate(ctx: Any, gradient_NCHW: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    *kept, logit_bias, value_bias = ctx.saved_tensors
    with without_autocast(gradient_NCHW):
        if torch.is_grad_enabled():  # the gradients will be differentiated
            x_NCHW, _, _, logit_weight, value_weight, alpha = kept
            weights = CSAWeights(logit_weight, value_weight, alpha, logit_bias, value_bias, ctx.groups)
            return differentiable_gradients(gradient_NCHW, x_NCHW, weights)
        *gradients, logit_bias_grad, value_bias_grad = _backward(gradient_NCHW, *kept, logit_bias, value_bias, ctx.groups)
    bias_grads = (None if logit_bias is None else logit_bias_grad, None if value_bias is None else value_bias_grad)
    return *gradients, *bias_grads, None


_forward.register_autograd(_differentiate, setup_context=_keep)
