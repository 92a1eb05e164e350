"""Triton programs of the exact reordering: two passes over the feature map forward, and two backward.

Forward: `gather` forms the logits tile by tile and accumulates U = X B^T with an online softmax, `join` adds up its splits,
and `scatter` forms the logits again and writes O = X + alpha E W. Backward: `gather_gradient` accumulates dO W^T, `join` adds
up its splits, and `input_gradient` writes dX and sums the gradient of the base vectors. The products of size c x D between
the two passes, such as E = Wg U + bg, are PyTorch's.

Legend: N images, G groups of c channels, P positions, D maps per group, S splits of the positions, K = N*D columns.
BLOCK_D: all maps of a group. BLOCK_C: the channels whose sums one program accumulates. BLOCK_K: the channels read at a time
for the logits, or joined by one program. BLOCK_P: positions per tile. FLAT: one stride leads from each position to the next.
elementary: alpha E (G, c, K). mean_gradient: dU (G, c, K). delta: the sum over channels of dU * U (G, K), which the softmax's
backward subtracts.
"""

import triton
import triton.language as tl


@triton.jit
def _dot(a, b, start, PRECISION: tl.constexpr, UPCAST: tl.constexpr):
    if UPCAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, start, input_precision=PRECISION)


@triton.jit
def _place(first, second):
    """The program's index split into three; the grid has one axis, because the others are limited to 65,535 programs."""
    program = tl.program_id(0)
    return program % first, program // first % second, program // (first * second)


@triton.jit
def _position_offsets(positions, width, stride_h, stride_w, FLAT: tl.constexpr):
    if FLAT:
        return positions.to(tl.int64) * stride_w
    return (positions // width).to(tl.int64) * stride_h + (positions % width).to(tl.int64) * stride_w


@triton.jit
def _tile(x, channels, stride_c, offsets, inside, c):
    """The values of some channels at some positions (channels x positions), 0 outside."""
    mask = (channels < c)[:, None] & inside[None, :]
    return tl.load(x + channels.to(tl.int64)[:, None] * stride_c + offsets[None, :], mask=mask, other=0.0)


@triton.jit
def _store_tile(out, channels, stride_c, offsets, inside, c, values):
    """Write the values of some channels at some positions."""
    mask = (channels < c)[:, None] & inside[None, :]
    place = out + channels.to(tl.int64)[:, None] * stride_c + offsets[None, :]
    tl.store(place, values.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _matrix(m, rows, columns, most_rows, most_columns, stride):
    """A block of a matrix whose rows lie `stride` apart, 0 outside."""
    mask = (rows < most_rows)[:, None] & (columns < most_columns)[None, :]
    return tl.load(m + rows.to(tl.int64)[:, None] * stride + columns[None, :], mask=mask, other=0.0)


@triton.jit
def _logits(
    x, stride_c, offsets, inside, base, bias, c, D,
    HAS_BIAS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """M = Wm X + bm of a tile (D x P), in fp32."""
    maps = tl.arange(0, BLOCK_D)
    logits = tl.zeros((BLOCK_D, BLOCK_P), tl.float32)
    for start in range(0, c, BLOCK_K):
        channels = start + tl.arange(0, BLOCK_K)
        weight = _matrix(base, maps, channels, D, c, c)
        logits = _dot(weight, _tile(x, channels, stride_c, offsets, inside, c), logits, PRECISION, UPCAST)
    if HAS_BIAS:
        logits += tl.load(bias + maps, mask=maps < D, other=0.0).to(tl.float32)[:, None]
    return logits


@triton.jit
def _adaptive_weights(logits, maps, D):
    """W of a tile (D x P): the softmax over the maps, equation (4)."""
    logits = tl.where((maps < D)[:, None], logits, float("-inf"))
    exponentials = tl.exp(logits - tl.max(logits, 0)[None, :])
    return exponentials / tl.sum(exponentials, 0)[None, :]


@triton.jit
def gather(
    x, base, bias, gathered, highest, total,
    stride_n, stride_c, stride_h, stride_w, width, G, c, D, P, S, tiles_per_split,
    HAS_BIAS: tl.constexpr, FLAT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_P: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Writes, for each split, the highest logit of each map, the sum of exponentials, and X times them (N*G, S, c, D)."""
    split, block, image_group = _place(S, tl.cdiv(c, BLOCK_C))
    group = image_group % G
    # pointers to this image and group
    x += (image_group // G).to(tl.int64) * stride_n + (group * c).to(tl.int64) * stride_c
    base += group * D * c
    bias += group * D
    # running maximum, denominator [D] and numerator [c, D] of the online softmax over positions
    maps, channels = tl.arange(0, BLOCK_D), block * BLOCK_C + tl.arange(0, BLOCK_C)
    best = tl.full((BLOCK_D,), float("-inf"), tl.float32)
    denominator = tl.zeros((BLOCK_D,), tl.float32)
    numerator = tl.zeros((BLOCK_C, BLOCK_D), tl.float32)
    first = split * tiles_per_split * BLOCK_P
    for start in range(first, min(first + tiles_per_split * BLOCK_P, P), BLOCK_P):
        positions = start + tl.arange(0, BLOCK_P)
        inside = positions < P
        offsets = _position_offsets(positions, width, stride_h, stride_w, FLAT)
        # [D, P] logits of the tile; -inf outside, so that they add nothing
        logits = _logits(
            x, stride_c, offsets, inside, base, bias, c, D, HAS_BIAS, BLOCK_D, BLOCK_K, BLOCK_P, PRECISION, UPCAST
        )  # fmt: skip
        logits = tl.where(inside[None, :], logits, float("-inf"))
        # online softmax: rescale what was summed to the new maximum, then add X times the new exponentials
        better = tl.maximum(best, tl.max(logits, 1))
        rescale = tl.exp(best - better)
        exponentials = tl.exp(logits - better[:, None])
        values = _tile(x, channels, stride_c, offsets, inside, c)
        numerator = _dot(values, tl.trans(exponentials.to(values.dtype)), numerator * rescale[None, :], PRECISION, UPCAST)
        denominator = denominator * rescale + tl.sum(exponentials, 1)
        best = better
    # one partial result per split; the channel blocks of a split agree on maximum and denominator, the first writes them
    place = image_group * S + split
    mask = (channels < c)[:, None] & (maps < D)[None, :]
    tl.store(gathered + place.to(tl.int64) * c * D + channels[:, None] * D + maps[None, :], numerator, mask=mask)
    if block == 0:
        tl.store(highest + place * D + maps, best, mask=maps < D)
        tl.store(total + place * D + maps, denominator, mask=maps < D)


@triton.jit
def join(
    gathered, highest, total, joined, log_totals,
    G, c, D, K, S,
    IS_SOFTMAX: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Adds up the splits of a gather and writes the sums (G, c, K), every image's maps side by side.

    IS_SOFTMAX: each split has its own maximum and denominator; this also writes the logarithm of their common denominator.
    """
    block, _, image_group = _place(tl.cdiv(c, BLOCK_K), 1)
    image, group = image_group // G, image_group % G
    maps, channels = tl.arange(0, BLOCK_D), block * BLOCK_K + tl.arange(0, BLOCK_K)
    known = maps < D
    if IS_SOFTMAX:
        # [D] the maximum over all splits
        best = tl.full((BLOCK_D,), float("-inf"), tl.float32)
        for split in range(S):
            best = tl.maximum(best, tl.load(highest + (image_group * S + split) * D + maps, mask=known, other=0.0))
        # [D] the denominator over all splits, each rescaled to the common maximum
        summed = tl.zeros((BLOCK_D,), tl.float32)
        for split in range(S):
            place = (image_group * S + split) * D + maps
            rescale = tl.exp(tl.load(highest + place, mask=known, other=0.0) - best)
            summed += rescale * tl.load(total + place, mask=known, other=1.0)
        if block == 0:
            tl.store(log_totals + image_group * D + maps, best + tl.log(summed), mask=known)
    # [c, D] the sum over all splits, for a softmax each rescaled and divided by the denominator
    sums = tl.zeros((BLOCK_K, BLOCK_D), tl.float32)
    for split in range(S):
        place = image_group * S + split
        part = _matrix(gathered + place.to(tl.int64) * c * D, channels, maps, c, D, D)
        if IS_SOFTMAX:
            part *= (tl.exp(tl.load(highest + place * D + maps, mask=known, other=0.0) - best) / summed)[None, :]
        sums += part
    mask = (channels < c)[:, None] & known[None, :]
    rows = (group * c + channels).to(tl.int64) * K
    tl.store(joined + rows[:, None] + (image * D + maps)[None, :], sums, mask=mask)


@triton.jit
def scatter(
    x, base, bias, elementary, out,
    stride_n, stride_c, stride_h, stride_w, out_n, out_c, out_h, out_w, width, G, c, D, K, P,
    HAS_BIAS: tl.constexpr, FLAT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Writes O = X + alpha E W of one tile, equation (7)."""
    tile, _, image_group = _place(tl.cdiv(P, BLOCK_P), 1)
    image, group = (image_group // G).to(tl.int64), image_group % G
    first_channel = (group * c).to(tl.int64)
    # pointers to this image and group, in input and output
    x += image * stride_n + first_channel * stride_c
    out += image * out_n + first_channel * out_c
    elementary += first_channel * K + image * D
    maps, positions = tl.arange(0, BLOCK_D), tile * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = positions < P
    offsets = _position_offsets(positions, width, stride_h, stride_w, FLAT)
    written = _position_offsets(positions, width, out_h, out_w, FLAT)
    # [D, P] the tile's logits again, and its adaptive weights
    logits = _logits(
        x, stride_c, offsets, inside, base + group * D * c, bias + group * D, c, D,
        HAS_BIAS, BLOCK_D, BLOCK_K, BLOCK_P, PRECISION, UPCAST,
    )  # fmt: skip
    weights = _adaptive_weights(logits, maps, D)
    # [c, P] X + alpha E W, channel step by channel step; the sum starts from X
    for start in range(0, c, BLOCK_K):
        channels = start + tl.arange(0, BLOCK_K)
        values = _tile(x, channels, stride_c, offsets, inside, c)
        outputs = _matrix(elementary, channels, maps, c, D, K)
        result = _dot(outputs, weights.to(outputs.dtype), values.to(tl.float32), PRECISION, UPCAST)
        _store_tile(out, channels, out_c, written, inside, c, result)


@triton.jit
def gather_gradient(
    x, gradient, base, bias, gathered,
    stride_n, stride_c, stride_h, stride_w, grad_n, grad_c, grad_h, grad_w, width, G, c, D, P, S, tiles_per_split,
    HAS_BIAS: tl.constexpr, FLAT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_P: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Writes dO W^T for each split (N*G, S, c, D)."""
    split, block, image_group = _place(S, tl.cdiv(c, BLOCK_C))
    image, group = (image_group // G).to(tl.int64), image_group % G
    first_channel = (group * c).to(tl.int64)
    # pointers to this image and group, in input and gradient
    x += image * stride_n + first_channel * stride_c
    gradient += image * grad_n + first_channel * grad_c
    base += group * D * c
    bias += group * D
    maps, channels = tl.arange(0, BLOCK_D), block * BLOCK_C + tl.arange(0, BLOCK_C)
    sums = tl.zeros((BLOCK_C, BLOCK_D), tl.float32)
    first = split * tiles_per_split * BLOCK_P
    for start in range(first, min(first + tiles_per_split * BLOCK_P, P), BLOCK_P):
        positions = start + tl.arange(0, BLOCK_P)
        inside = positions < P
        offsets = _position_offsets(positions, width, stride_h, stride_w, FLAT)
        # [D, P] the tile's logits again, and its adaptive weights
        logits = _logits(
            x, stride_c, offsets, inside, base, bias, c, D, HAS_BIAS, BLOCK_D, BLOCK_K, BLOCK_P, PRECISION, UPCAST
        )  # fmt: skip
        weights = _adaptive_weights(logits, maps, D)
        # [c, D] dO W^T, summed over the tiles of the split
        offsets = _position_offsets(positions, width, grad_h, grad_w, FLAT)
        incoming = _tile(gradient, channels, grad_c, offsets, inside, c)
        sums = _dot(incoming, tl.trans(weights.to(incoming.dtype)), sums, PRECISION, UPCAST)
    # one partial result per split
    mask = (channels < c)[:, None] & (maps < D)[None, :]
    place = (image_group * S + split).to(tl.int64) * c * D
    tl.store(gathered + place + channels[:, None] * D + maps[None, :], sums, mask=mask)


@triton.jit
def _products_with_gradients(
    x, stride_c, offsets, gradient, grad_c, grad_offsets, inside, base, bias, elementary, mean_gradient, c, D, K,
    HAS_BIAS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """The logits M of a tile, and the gradients of its adaptive weights and base maps, each D x P."""
    maps = tl.arange(0, BLOCK_D)
    logits = tl.zeros((BLOCK_D, BLOCK_P), tl.float32)
    weight_gradient = tl.zeros((BLOCK_D, BLOCK_P), tl.float32)
    map_gradient = tl.zeros((BLOCK_D, BLOCK_P), tl.float32)
    for start in range(0, c, BLOCK_K):
        channels = start + tl.arange(0, BLOCK_K)
        values = _tile(x, channels, stride_c, offsets, inside, c)
        incoming = _tile(gradient, channels, grad_c, grad_offsets, inside, c)
        logits = _dot(_matrix(base, maps, channels, D, c, c), values, logits, PRECISION, UPCAST)
        outputs = tl.trans(_matrix(elementary, channels, maps, c, D, K))
        weight_gradient = _dot(outputs, incoming, weight_gradient, PRECISION, UPCAST)
        means = tl.trans(_matrix(mean_gradient, channels, maps, c, D, K))
        map_gradient = _dot(means, values, map_gradient, PRECISION, UPCAST)
    if HAS_BIAS:
        logits += tl.load(bias + maps, mask=maps < D, other=0.0).to(tl.float32)[:, None]
    return logits, weight_gradient, map_gradient


@triton.jit
def _softmax_gradients(logits, weight_gradient, map_gradient, log_total, offset, maps, inside, D):
    """The base maps B of a tile and the gradient dM of its logits, through both softmaxes; each D x P, 0 outside."""
    weights = _adaptive_weights(logits, maps, D)
    attention = tl.where((maps < D)[:, None] & inside[None, :], tl.exp(logits - log_total[:, None]), 0.0)
    logit_gradient = weights * (weight_gradient - tl.sum(weights * weight_gradient, 0)[None, :])
    logit_gradient += attention * (map_gradient - offset[:, None])
    return attention, tl.where(inside[None, :], logit_gradient, 0.0)


@triton.jit
def input_gradient(
    x, gradient, base, bias, elementary, log_totals, mean_gradient, delta, out, base_gradient, bias_gradient,
    stride_n, stride_c, stride_h, stride_w, grad_n, grad_c, grad_h, grad_w, out_n, out_c, out_h, out_w,
    width, G, c, D, K, P, S, tiles_per_split,
    HAS_BIAS: tl.constexpr, FLAT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_P: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Writes dX = dO + dU B + Wm^T dM and, for each split, dM X^T (N*G, S, D, c) and the sum of dM (N*G, S, D)."""
    split, block, image_group = _place(S, tl.cdiv(c, BLOCK_C))
    image, group = (image_group // G).to(tl.int64), image_group % G
    first_channel, column = (group * c).to(tl.int64), image * D
    # pointers to this image and group
    x += image * stride_n + first_channel * stride_c
    gradient += image * grad_n + first_channel * grad_c
    out += image * out_n + first_channel * out_c
    base += group * D * c
    bias += group * D
    elementary += first_channel * K + column
    mean_gradient += first_channel * K + column
    # [D] log denominators and delta; [D, c] base vectors and [c, D] dU of this program's channels
    maps, channels = tl.arange(0, BLOCK_D), block * BLOCK_C + tl.arange(0, BLOCK_C)
    known = maps < D
    log_total = tl.load(log_totals + image_group * D + maps, mask=known, other=0.0)
    offset = tl.load(delta + group * K + column + maps, mask=known, other=0.0)
    vectors = _matrix(base, maps, channels, D, c, c)
    mean_rows = _matrix(mean_gradient, channels, maps, c, D, K)
    # running sums over the tiles of the split
    base_sums = tl.zeros((BLOCK_D, BLOCK_C), tl.float32)
    bias_sums = tl.zeros((BLOCK_D,), tl.float32)
    first = split * tiles_per_split * BLOCK_P
    for start in range(first, min(first + tiles_per_split * BLOCK_P, P), BLOCK_P):
        positions = start + tl.arange(0, BLOCK_P)
        inside = positions < P
        here = _position_offsets(positions, width, stride_h, stride_w, FLAT)
        there = _position_offsets(positions, width, grad_h, grad_w, FLAT)
        # [D, P] three products over all channels: logits M, dW = (alpha E)^T dO, dB = dU^T X
        logits, weight_gradient, map_gradient = _products_with_gradients(
            x, stride_c, here, gradient, grad_c, there, inside, base, bias, elementary, mean_gradient, c, D, K,
            HAS_BIAS, BLOCK_D, BLOCK_K, BLOCK_P, PRECISION, UPCAST,
        )  # fmt: skip
        # [D, P] base maps B, and dM, the gradient of the logits
        attention, logit_gradient = _softmax_gradients(
            logits, weight_gradient, map_gradient, log_total, offset, maps, inside, D
        )  # fmt: skip
        # [c, P] dX = dO + dU B + Wm^T dM of this program's channels
        values = _tile(x, channels, stride_c, here, inside, c)
        incoming = _tile(gradient, channels, grad_c, there, inside, c)
        result = _dot(mean_rows, attention.to(mean_rows.dtype), incoming.to(tl.float32), PRECISION, UPCAST)
        result = _dot(tl.trans(vectors), logit_gradient.to(vectors.dtype), result, PRECISION, UPCAST)
        written = _position_offsets(positions, width, out_h, out_w, FLAT)
        _store_tile(out, channels, out_c, written, inside, c, result)
        # [D, c] dM X^T and [D] the sum of dM
        base_sums = _dot(logit_gradient.to(values.dtype), tl.trans(values), base_sums, PRECISION, UPCAST)
        bias_sums += tl.sum(logit_gradient, 1)
    # one partial result per split; the channel blocks of a split agree on the sum of dM, the first writes it
    place = (image_group * S + split).to(tl.int64)
    mask = known[:, None] & (channels < c)[None, :]
    tl.store(base_gradient + place * c * D + maps[:, None] * c + channels[None, :], base_sums, mask=mask)
    if block == 0:
        tl.store(bias_gradient + place * D + maps, bias_sums, mask=known)
