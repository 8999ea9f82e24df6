"""batch_norm_act in Triton: moments of the batch, normalisation with activation, and its backward; no atomics.

A tensor is [outer, channels, inner] as it lies: planes (inner = P), or rows with the channels last (inner = 1, LAST). A
program takes tiles of BO outer × BI inner elements: of one channel, or with LAST of BI channels. Moments are those of
each element's slot in the tile over the steps (Welford), merged at the end (Chan); `chunks` programs a channel leave
theirs in `partial`, and one more launch merges them in a fixed order. Differences are to the channel's first element.
ACT is the name of an activation or None. An absent weight or bias is None.
"""

import triton
import triton.language as tl
from ganfast.kernels import _activations as act
from ganfast.kernels import tuned
from ganfast.kernels._launch import cdiv, launch, power_of_2

TILE = 4096  # elements
PROGRAMS = 1024  # about, of a launch over the whole tensor
globals().update(tuned.constants("batch_norm_act"))
MAX_CHUNKS = 512
FINISH_CHANNELS = 16
FINISH_CHUNKS = 64


@triton.jit
def _place(outer_chunks, inner_blocks, steps, BO: tl.constexpr):
    """A program's channels (a tile of them with LAST), its chunk, its block along inner, its first outer rows [BO]."""
    p = tl.program_id(0)
    chunk = p % (outer_chunks * inner_blocks)
    rows = (chunk % outer_chunks) * (steps * BO) + tl.arange(0, BO)
    return p // (outer_chunks * inner_blocks), chunk, chunk // outer_chunks, rows


@triton.jit
def _columns(which, block, channels, inner, LAST: tl.constexpr, BI: tl.constexpr):
    """Offsets of a row's elements [1, BI], and which there are."""
    if LAST:
        i = which * BI + tl.arange(0, BI)
        columns = i.to(tl.int64)[None, :]
        inside = (i < channels)[None, :]
    else:
        i = block * BI + tl.arange(0, BI)
        columns = (which.to(tl.int64) * inner + i)[None, :]
        inside = (i < inner)[None, :]
    return columns, inside


@triton.jit
def _channel(p, which, channels, LAST: tl.constexpr, BI: tl.constexpr):
    """A parameter of the program's channel, or [1, BI]."""
    if LAST:
        c = which * BI + tl.arange(0, BI)
        value = tl.load(p + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    else:
        value = tl.load(p + which).to(tl.float32)
    return value


@triton.jit
def _put(p, value, which, channels, LAST: tl.constexpr, BI: tl.constexpr):
    """value[channel] of the program's channels."""
    if LAST:
        c = which * BI + tl.arange(0, BI)
        tl.store(p + c, value, mask=c < channels)
    else:
        tl.store(p + which, value)


@triton.jit
def _total(x, LAST: tl.constexpr):
    """Sum of a tile for each channel."""
    s = tl.sum(x, axis=0)
    if not LAST:
        s = tl.sum(s, axis=0)
    return s


@triton.jit
def _spread(v, LAST: tl.constexpr):
    """A value for each channel against a tile."""
    if LAST:
        v = v[None, :]
    return v


@triton.jit
def _affine(
    weight, bias, mean, var, eps, which, channels, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr,
    LAST: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """mean, r = 1/√(var + eps), weight·r and bias of the program's channels."""
    m = _channel(mean, which, channels, LAST, BI)
    r = 1.0 / tl.sqrt(_channel(var, which, channels, LAST, BI) + eps)
    scale = r
    shift = 0.0
    if HAS_WEIGHT:
        scale = r * _channel(weight, which, channels, LAST, BI)
    if HAS_BIAS:
        shift = _channel(bias, which, channels, LAST, BI)
    return m, r, scale, shift


@triton.jit
def moments_kernel(
    y, outer, channels, inner, outer_chunks, inner_blocks, steps, partial,
    LAST: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """partial[0..2][chunk, channel] = number of elements, mean of the differences to the first one, M2."""
    which, chunk, block, rows = _place(outer_chunks, inner_blocks, steps, BO)
    columns, inside = _columns(which, block, channels, inner, LAST, BI)
    if LAST:
        first = _channel(y, which, channels, LAST, BI)
    else:
        first = tl.load(y + which.to(tl.int64) * inner).to(tl.float32)
    mean = tl.zeros([BO, BI], tl.float32)
    m2 = tl.zeros([BO, BI], tl.float32)
    for step in range(steps):
        o = rows + step * BO
        mask = (o < outer)[:, None] & inside
        at = (o.to(tl.int64) * channels * inner)[:, None] + columns
        x = tl.load(y + at, mask=mask, other=0.0).to(tl.float32)
        d = tl.where(mask, x - first - mean, 0.0)
        share = 1.0 / (step + 1)
        mean += d * share
        m2 += d * d * (1.0 - share)
    seen = tl.minimum(tl.maximum((outer - rows + BO - 1) // BO, 0), steps).to(tl.float32)[:, None]
    count = tl.where(inside, seen, 0.0)
    number = _total(count, LAST)
    middle = _total(count * mean, LAST) / tl.maximum(number, 1.0)
    d = mean - _spread(middle, LAST)
    p = partial + chunk.to(tl.int64) * channels
    size = channels * outer_chunks * inner_blocks
    _put(p, number, which, channels, LAST, BI)
    _put(p + size, middle, which, channels, LAST, BI)
    _put(p + 2 * size, _total(m2 + count * d * d, LAST), which, channels, LAST, BI)


@triton.jit
def _partials(p, first, chunks, channels, c, BK: tl.constexpr):
    """[BK, channels]: chunks first … of a partial result."""
    k = first + tl.arange(0, BK)
    mask = (k < chunks)[:, None] & (c < channels)[None, :]
    return tl.load(p + (k.to(tl.int64)[:, None] * channels + c[None, :]), mask=mask, other=0.0)


@triton.jit
def moments_finish_kernel(y, channels, inner, chunks, partial, mean, var, BK: tl.constexpr, BC: tl.constexpr):
    """mean and (biased) var of the chunks' moments, BC channels a program."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    size = channels * chunks
    number = tl.zeros([BK, BC], tl.float32)
    total = tl.zeros([BK, BC], tl.float32)
    for k in range(0, chunks, BK):
        n = _partials(partial, k, chunks, channels, c, BK)
        number += n
        total += n * _partials(partial + size, k, chunks, channels, c, BK)
    count = tl.sum(number, axis=0)
    middle = tl.sum(total, axis=0) / count
    m2 = tl.zeros([BK, BC], tl.float32)
    for k in range(0, chunks, BK):
        d = _partials(partial + size, k, chunks, channels, c, BK) - middle[None, :]
        n = _partials(partial, k, chunks, channels, c, BK)
        m2 += _partials(partial + 2 * size, k, chunks, channels, c, BK) + n * d * d
    first = tl.load(y + c.to(tl.int64) * inner, mask=c < channels, other=0.0).to(tl.float32)
    tl.store(mean + c, first + middle, mask=c < channels)
    tl.store(var + c, tl.sum(m2, axis=0) / count, mask=c < channels)


@triton.jit
def apply_kernel(
    y, weight, bias, mean, var, eps, slope, outer, channels, inner, outer_chunks, inner_blocks, steps, a,
    ACT: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr,
    LAST: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """a = act((y − mean)·scale + bias)."""
    which, _chunk, block, rows = _place(outer_chunks, inner_blocks, steps, BO)
    columns, inside = _columns(which, block, channels, inner, LAST, BI)
    m, _r, scale, shift = _affine(weight, bias, mean, var, eps, which, channels, HAS_WEIGHT, HAS_BIAS, LAST, BI)
    for step in range(steps):
        o = rows + step * BO
        mask = (o < outer)[:, None] & inside
        at = (o.to(tl.int64) * channels * inner)[:, None] + columns
        x = tl.load(y + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(a + at, act.activate((x - m) * scale + shift, slope, ACT).to(a.dtype.element_ty), mask=mask)


@triton.jit
def sums_kernel(
    g, y, weight, bias, mean, var, eps, slope, outer, channels, inner, outer_chunks, inner_blocks, steps, partial,
    ACT: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr,
    LAST: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """partial[0..1][chunk, channel] = Σ dz and Σ dz·(y − mean), dz = g·act'."""
    which, chunk, block, rows = _place(outer_chunks, inner_blocks, steps, BO)
    columns, inside = _columns(which, block, channels, inner, LAST, BI)
    m, _r, scale, shift = _affine(weight, bias, mean, var, eps, which, channels, HAS_WEIGHT, HAS_BIAS, LAST, BI)
    total = tl.zeros([BO, BI], tl.float32)
    along = tl.zeros([BO, BI], tl.float32)
    for step in range(steps):
        o = rows + step * BO
        mask = (o < outer)[:, None] & inside
        at = (o.to(tl.int64) * channels * inner)[:, None] + columns
        d = tl.load(y + at, mask=mask, other=0.0).to(tl.float32) - m
        dz = act.sloped(tl.load(g + at, mask=mask, other=0.0).to(tl.float32), d * scale + shift, slope, ACT)
        total += dz
        along += dz * d
    p = partial + chunk.to(tl.int64) * channels
    _put(p, _total(total, LAST), which, channels, LAST, BI)
    size = channels * outer_chunks * inner_blocks
    _put(p + size, _total(along, LAST), which, channels, LAST, BI)


@triton.jit
def sums_finish_kernel(var, eps, channels, chunks, partial, dweight, dbias, BK: tl.constexpr, BC: tl.constexpr):
    """dbias = Σ dz and dweight = Σ dz·x̂ of the chunks' sums, BC channels a program."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    size = channels * chunks
    total = tl.zeros([BK, BC], tl.float32)
    along = tl.zeros([BK, BC], tl.float32)
    for k in range(0, chunks, BK):
        total += _partials(partial, k, chunks, channels, c, BK)
        along += _partials(partial + size, k, chunks, channels, c, BK)
    r = 1.0 / tl.sqrt(tl.load(var + c, mask=c < channels, other=1.0) + eps)
    tl.store(dbias + c, tl.sum(total, axis=0), mask=c < channels)
    tl.store(dweight + c, tl.sum(along, axis=0) * r, mask=c < channels)


@triton.jit
def gradient_kernel(
    g, y, weight, bias, mean, var, dweight, dbias, eps, slope, share, outer, channels, inner, outer_chunks,
    inner_blocks, steps, dy,
    ACT: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, USE_BATCH: tl.constexpr,
    LAST: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """dy = scale·(dz − share·(dbias + x̂·dweight)), share = 1/n; of given statistics scale·dz."""
    which, _chunk, block, rows = _place(outer_chunks, inner_blocks, steps, BO)
    columns, inside = _columns(which, block, channels, inner, LAST, BI)
    m, r, scale, shift = _affine(weight, bias, mean, var, eps, which, channels, HAS_WEIGHT, HAS_BIAS, LAST, BI)
    if USE_BATCH:
        bend = -scale * r * share * _channel(dweight, which, channels, LAST, BI)
        lift = -scale * share * _channel(dbias, which, channels, LAST, BI)
    for step in range(steps):
        o = rows + step * BO
        mask = (o < outer)[:, None] & inside
        at = (o.to(tl.int64) * channels * inner)[:, None] + columns
        d = tl.load(y + at, mask=mask, other=0.0).to(tl.float32) - m
        dz = act.sloped(tl.load(g + at, mask=mask, other=0.0).to(tl.float32), d * scale + shift, slope, ACT)
        value = dz * scale
        if USE_BATCH:
            value += d * bend + lift
        tl.store(dy + at, value.to(dy.dtype.element_ty), mask=mask)


@triton.jit
def update_kernel(running_mean, running_var, mean, var, momentum, unbias, channels, BC: tl.constexpr):
    """running += momentum·(batch − running), the variance times `unbias`."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    mask = c < channels
    for_mean = tl.load(running_mean + c, mask=mask, other=0.0).to(tl.float32) * (1.0 - momentum)
    for_var = tl.load(running_var + c, mask=mask, other=0.0).to(tl.float32) * (1.0 - momentum)
    for_mean += momentum * tl.load(mean + c, mask=mask, other=0.0)
    for_var += momentum * unbias * tl.load(var + c, mask=mask, other=0.0)
    tl.store(running_mean + c, for_mean.to(running_mean.dtype.element_ty), mask=mask)
    tl.store(running_var + c, for_var.to(running_var.dtype.element_ty), mask=mask)


# --- launchers --------------------------------------------------------------------------------------------------------


def _power(n, most):
    return min(power_of_2(max(n, 1)), most)


def _cut(outer, channels, inner, last):
    """The grid, chunks a channel, and what every kernel over the tensor takes: three sizes, and a tile's constants."""
    if last:
        width = _power(channels, 64)
        groups, inner_blocks = cdiv(channels, width), 1
        height = _power(outer, TILE // width)
    else:
        height = _power(outer, TILE // _power(inner, TILE // 4))
        width = _power(inner, TILE // height)
        groups, inner_blocks = channels, cdiv(inner, width)
    blocks = cdiv(outer, height)
    wanted = max(min(PROGRAMS // (groups * inner_blocks), MAX_CHUNKS), 1)
    steps = cdiv(blocks, wanted)
    outer_chunks = cdiv(blocks, steps)
    warps = min(max(height * width // 512, 1), 8)
    tile = {"LAST": last, "BO": height, "BI": width, "num_warps": warps, "enable_fp_fusion": True}
    return (
        (groups * inner_blocks * outer_chunks,),
        outer_chunks * inner_blocks,
        (outer_chunks, inner_blocks, steps),
        tile,
    )


def _finish(channels):
    width = _power(channels, FINISH_CHANNELS)
    grid = (cdiv(channels, width),)
    return grid, {"BK": FINISH_CHUNKS, "BC": width, "num_warps": 4, "enable_fp_fusion": True}


def workspace(outer, channels, inner, last):
    """Floats of workspace."""
    return 3 * channels * _cut(outer, channels, inner, last)[1]


def _options(y, weight, bias, activation):
    """weight and bias as pointers, and the constants that say which there are."""
    flags = {"ACT": activation, "HAS_WEIGHT": weight is not None, "HAS_BIAS": bias is not None}
    return y if weight is None else weight, y if bias is None else bias, flags


def forward(y, sizes, last, weight, bias, use_batch, eps, activation, slope, partial, a, mean, var):
    """a, and where use_batch mean and var; sizes: outer, channels, inner, none of them 0."""
    _outer, channels, inner = sizes
    grid, chunks, cut, tile = _cut(*sizes, last)
    if use_batch:
        launch(moments_kernel, grid, y, *sizes, *cut, partial, **tile)
        few, options = _finish(channels)
        launch(moments_finish_kernel, few, y, channels, inner, chunks, partial, mean, var, **options)
    weight, bias, flags = _options(y, weight, bias, activation)
    launch(apply_kernel, grid, y, weight, bias, mean, var, eps, slope, *sizes, *cut, a, **flags, **tile)


def backward(
    g, y, sizes, last, weight, bias, mean, var, use_batch, eps, activation, slope, partial, dy, dweight, dbias
):
    """dy, dweight and dbias of g, the cotangent of a."""
    outer, channels, inner = sizes
    grid, chunks, cut, tile = _cut(*sizes, last)
    weight, bias, flags = _options(y, weight, bias, activation)
    launch(sums_kernel, grid, g, y, weight, bias, mean, var, eps, slope, *sizes, *cut, partial, **flags, **tile)
    few, options = _finish(channels)
    launch(sums_finish_kernel, few, var, eps, channels, chunks, partial, dweight, dbias, **options)
    launch(gradient_kernel, grid,
        g, y, weight, bias, mean, var, dweight, dbias, eps, slope, 1.0 / (outer * inner), *sizes, *cut, dy,
        USE_BATCH=use_batch, **flags, **tile,
    )  # fmt: skip


def update(running_mean, running_var, mean, var, momentum, unbias):
    """The running statistics in place."""
    channels = running_mean.shape[0]
    width = _power(channels, 256)
    launch(
        update_kernel, (cdiv(channels, width),), running_mean, running_var, mean, var, momentum, unbias, channels,
        BC=width, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
