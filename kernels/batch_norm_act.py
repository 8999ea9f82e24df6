"""batch_norm_act in Triton: moments of the batch, normalisation with activation, and its backward; no atomics.

A tensor is [outer, channels, inner] as it lies: planes (inner = P), or rows with the channels last (inner = 1, LAST). A
program takes tiles of BO outer × BI inner elements: of one channel, or with LAST of BI channels. Moments are those of
each element's slot in the tile over the steps (Welford), merged at the end (Chan); `chunks` programs a channel leave
theirs in partials, which _statistics.py merges. Differences are to the channel's first element. A small tensor is read
by one program for each few channels, which then has their sums and goes over them again: one launch.
"""

import triton
import triton.language as tl
from ganfast.kernels import _activations as act
from ganfast.kernels import _statistics, tuned
from ganfast.kernels._launch import cdiv, launch, power_of_2

TILE = 4096  # elements
PROGRAMS = 1024  # about, of a launch over the whole tensor
globals().update(tuned.constants("batch_norm_act"))
MAX_CHUNKS = 512
SMALL, SHARE = 4 << 20, 256 << 10  # bytes of a small tensor, and of what one program reads of it
SEGMENT = 32  # bytes of a row that a program of a small tensor reads


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
def _indices(which, LAST: tl.constexpr, BI: tl.constexpr):
    """The program's channel, or [BI]."""
    if LAST:
        which = which * BI + tl.arange(0, BI)
    return which


@triton.jit
def _put(p, value, which, channels, LAST: tl.constexpr, BI: tl.constexpr):
    """value[channel] of the program's channels."""
    c = _indices(which, LAST, BI)
    tl.store(p + c, value, mask=c < channels)


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
def _affine(weight, bias, moments, eps, which, channels, LAST: tl.constexpr, BI: tl.constexpr):
    """mean, r = 1/√(var + eps), weight·r and bias of the program's channels."""
    m = _channel(moments, which, channels, LAST, BI)
    r = 1.0 / tl.sqrt(_channel(moments + channels, which, channels, LAST, BI) + eps)
    scale = r
    shift = 0.0
    if weight is not None:
        scale = r * _channel(weight, which, channels, LAST, BI)
    if bias is not None:
        shift = _channel(bias, which, channels, LAST, BI)
    return m, r, scale, shift


# --- loops over a program's tiles -------------------------------------------------------------------------------------


@triton.jit
def _moments(
    y, rows, columns, inside, which, outer, channels, inner, steps, LAST: tl.constexpr, BO: tl.constexpr,
    BI: tl.constexpr,
):  # fmt: skip
    """The channels' first elements; number of elements, mean of their differences to those, and M2."""
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
    return first, number, middle, _total(m2 + count * d * d, LAST)


@triton.jit
def _apply(
    y, a, rows, columns, inside, m, scale, shift, slope, outer, channels, inner, steps, ACT: tl.constexpr,
    BO: tl.constexpr,
):  # fmt: skip
    """a = act((y − m)·scale + shift)."""
    for step in range(steps):
        o = rows + step * BO
        mask = (o < outer)[:, None] & inside
        at = (o.to(tl.int64) * channels * inner)[:, None] + columns
        x = tl.load(y + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(a + at, act.activate((x - m) * scale + shift, slope, ACT).to(a.dtype.element_ty), mask=mask)


@triton.jit
def _sums(
    g, y, rows, columns, inside, m, scale, shift, slope, outer, channels, inner, steps, ACT: tl.constexpr,
    LAST: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """Σ dz and Σ dz·(y − m), dz = g·act'."""
    total = tl.zeros([BO, BI], tl.float32)
    along = tl.zeros([BO, BI], tl.float32)
    for step in range(steps):
        o = rows + step * BO
        mask = (o < outer)[:, None] & inside
        at = (o.to(tl.int64) * channels * inner)[:, None] + columns
        d = tl.load(y + at, mask=mask, other=0.0).to(tl.float32) - m
        dz = act.sloped(tl.load(g + at, mask=mask, other=0.0).to(tl.float32), d * scale + shift, slope, ACT)
        dz = tl.where(mask, dz, 0.0)
        total += dz
        along += dz * d
    return _total(total, LAST), _total(along, LAST)


@triton.jit
def _gradient(
    g, y, dy, rows, columns, inside, m, scale, shift, bend, lift, slope, outer, channels, inner, steps,
    ACT: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """dy = scale·dz + bend·(y − m) + lift."""
    for step in range(steps):
        o = rows + step * BO
        mask = (o < outer)[:, None] & inside
        at = (o.to(tl.int64) * channels * inner)[:, None] + columns
        d = tl.load(y + at, mask=mask, other=0.0).to(tl.float32) - m
        dz = act.sloped(tl.load(g + at, mask=mask, other=0.0).to(tl.float32), d * scale + shift, slope, ACT)
        tl.store(dy + at, (dz * scale + d * bend + lift).to(dy.dtype.element_ty), mask=mask)


# --- kernels ----------------------------------------------------------------------------------------------------------


@triton.jit
def moments_kernel(
    y, outer, channels, inner, outer_chunks, inner_blocks, steps, partials,
    LAST: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """partials[chunk, 0..2, channel] = number of elements, mean of the differences to the first one, M2."""
    which, chunk, block, rows = _place(outer_chunks, inner_blocks, steps, BO)
    columns, inside = _columns(which, block, channels, inner, LAST, BI)
    _first, number, middle, m2 = _moments(y, rows, columns, inside, which, outer, channels, inner, steps, LAST, BO, BI)
    p = partials + chunk.to(tl.int64) * 3 * channels
    _put(p, number, which, channels, LAST, BI)
    _put(p + channels, middle, which, channels, LAST, BI)
    _put(p + 2 * channels, m2, which, channels, LAST, BI)


@triton.jit
def apply_kernel(
    y, weight, bias, moments, eps, slope, outer, channels, inner, outer_chunks, inner_blocks, steps, a,
    ACT: tl.constexpr, LAST: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    which, _chunk, block, rows = _place(outer_chunks, inner_blocks, steps, BO)
    columns, inside = _columns(which, block, channels, inner, LAST, BI)
    m, _r, scale, shift = _affine(weight, bias, moments, eps, which, channels, LAST, BI)
    _apply(y, a, rows, columns, inside, m, scale, shift, slope, outer, channels, inner, steps, ACT, BO)


@triton.jit
def small_kernel(
    y, weight, bias, eps, slope, outer, channels, inner, outer_chunks, inner_blocks, steps, a, moments, running_mean,
    running_var, batches, momentum, unbias, CUMULATIVE: tl.constexpr, ACT: tl.constexpr, LAST: tl.constexpr,
    BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """The whole forward of the program's channels."""
    which, _chunk, block, rows = _place(outer_chunks, inner_blocks, steps, BO)
    columns, inside = _columns(which, block, channels, inner, LAST, BI)
    first, number, middle, m2 = _moments(y, rows, columns, inside, which, outer, channels, inner, steps, LAST, BO, BI)
    number = tl.maximum(number, 1.0)
    if LAST:
        mean = tl.sum(first, axis=0) + middle  # [1, BI] → [BI]
    else:
        mean = first + middle
    var = m2 / number
    c = _indices(which, LAST, BI)
    _statistics.put_moments(
        moments, mean, var, running_mean, running_var, batches, momentum, unbias, c, channels, CUMULATIVE
    )
    scale = 1.0 / tl.sqrt(_spread(var, LAST) + eps)
    shift = 0.0
    if weight is not None:
        scale *= _channel(weight, which, channels, LAST, BI)
    if bias is not None:
        shift = _channel(bias, which, channels, LAST, BI)
    _apply(
        y, a, rows, columns, inside, _spread(mean, LAST), scale, shift, slope, outer, channels, inner, steps, ACT, BO
    )


@triton.jit
def sums_kernel(
    g, y, weight, bias, moments, eps, slope, outer, channels, inner, outer_chunks, inner_blocks, steps, partials, sums,
    ACT: tl.constexpr, LAST: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """partials[chunk, 0..1, channel] = Σ dz and Σ dz·(y − mean), dz = g·act'; or, of all chunks, sums = Σ dz, Σ dz·x̂."""
    which, chunk, block, rows = _place(outer_chunks, inner_blocks, steps, BO)
    columns, inside = _columns(which, block, channels, inner, LAST, BI)
    m, _r, scale, shift = _affine(weight, bias, moments, eps, which, channels, LAST, BI)
    total, along = _sums(
        g, y, rows, columns, inside, m, scale, shift, slope, outer, channels, inner, steps, ACT, LAST, BO, BI
    )
    if partials is None:
        c = _indices(which, LAST, BI)
        _statistics.put_sums(total, along, moments, weight, eps, sums, None, c, channels)
    else:
        p = partials + chunk.to(tl.int64) * 2 * channels
        _put(p, total, which, channels, LAST, BI)
        _put(p + channels, along, which, channels, LAST, BI)


@triton.jit
def gradient_kernel(
    g, y, weight, bias, moments, sums, eps, slope, share, outer, channels, inner, outer_chunks, inner_blocks, steps, dy,
    ACT: tl.constexpr, USE_BATCH: tl.constexpr, LAST: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """dy = scale·(dz − share·(Σ dz + x̂·Σ dz·x̂)), share = 1/n; of given statistics scale·dz."""
    which, _chunk, block, rows = _place(outer_chunks, inner_blocks, steps, BO)
    columns, inside = _columns(which, block, channels, inner, LAST, BI)
    m, r, scale, shift = _affine(weight, bias, moments, eps, which, channels, LAST, BI)
    bend, lift = 0.0, 0.0
    if USE_BATCH:
        bend = -scale * r * share * _channel(sums + channels, which, channels, LAST, BI)
        lift = -scale * share * _channel(sums, which, channels, LAST, BI)
    _gradient(
        g, y, dy, rows, columns, inside, m, scale, shift, bend, lift, slope, outer, channels, inner, steps, ACT, BO
    )


@triton.jit
def small_backward_kernel(
    g, y, weight, bias, moments, eps, slope, share, outer, channels, inner, outer_chunks, inner_blocks, steps, sums, dy,
    ACT: tl.constexpr, USE_BATCH: tl.constexpr, LAST: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """The whole backward of the program's channels."""
    which, _chunk, block, rows = _place(outer_chunks, inner_blocks, steps, BO)
    columns, inside = _columns(which, block, channels, inner, LAST, BI)
    m, r, scale, shift = _affine(weight, bias, moments, eps, which, channels, LAST, BI)
    total, along = _sums(
        g, y, rows, columns, inside, m, scale, shift, slope, outer, channels, inner, steps, ACT, LAST, BO, BI
    )
    c = _indices(which, LAST, BI)
    _statistics.put_sums(total, along, moments, weight, eps, sums, None, c, channels)
    bend, lift = 0.0, 0.0
    if USE_BATCH:
        bend = -scale * r * share * (_spread(along, LAST) * r)
        lift = -scale * share * _spread(total, LAST)
    _gradient(
        g, y, dy, rows, columns, inside, m, scale, shift, bend, lift, slope, outer, channels, inner, steps, ACT, BO
    )


# --- launchers --------------------------------------------------------------------------------------------------------


def _power(n, most):
    return min(power_of_2(max(n, 1)), most)


def _cut(outer, channels, inner, last, small=0):
    """The grid, chunks a channel, and what every kernel over the tensor takes: three sizes, and a tile's constants.

    small: bytes of an element where one program is to have all of its channels, else 0.
    """
    if last:
        width = _power(channels, SEGMENT // small if small else 64)
        groups, inner_blocks = cdiv(channels, width), 1
        height = _power(outer, TILE // width)
    else:
        height = _power(outer, TILE // _power(inner, TILE // 4))
        width = _power(inner, TILE // height)
        groups, inner_blocks = channels, cdiv(inner, width)
    blocks = cdiv(outer, height)
    wanted = 1 if small else max(min(PROGRAMS // (groups * inner_blocks), MAX_CHUNKS), 1)
    steps = cdiv(blocks, wanted)
    outer_chunks = cdiv(blocks, steps)
    warps = min(max(height * width // 512, 1), 8)
    return (
        (groups * inner_blocks * outer_chunks,),
        outer_chunks * inner_blocks,
        (outer_chunks, inner_blocks, steps),
        {"LAST": last, "BO": height, "BI": width, "num_warps": warps},
    )


def _cut_of(y, sizes, last):
    """_cut, and whether it is that of a small tensor."""
    outer, channels, inner = sizes
    if y.numel() * y.element_size() <= SMALL:
        grid, chunks, *rest = _cut(*sizes, last, y.element_size())
        if chunks == 1 and y.numel() * y.element_size() <= SHARE * grid[0]:
            return True, grid, chunks, *rest
    return False, *_cut(*sizes, last)


def forward(y, sizes, last, weight, bias, eps, activation, slope, running, a, moments):
    """a and moments [2, C] of y; sizes: outer, channels, inner, none of them 0; running: _statistics.running_of."""
    small, grid, _chunks, cut, tile = _cut_of(y, sizes, last)
    if not small:
        statistics(y, sizes, last, running, moments)
        apply(y, sizes, last, weight, bias, moments, eps, activation, slope, a)
        return
    launch(small_kernel, grid,
        y, weight, bias, eps, slope, *sizes, *cut, a, moments, *_statistics.running_of(running, sizes[0] * sizes[2]),
        CUMULATIVE=_statistics.is_cumulative(running), ACT=activation, **tile,
    )  # fmt: skip


def is_small(y, sizes, last) -> bool:
    """Whether forward is one launch."""
    return _cut_of(y, sizes, last)[0]


def statistics(y, sizes, last, running, moments):
    """moments [2, C] of y, and the running statistics."""
    grid, chunks, cut, tile = _cut(*sizes, last)
    partials = moments.new_empty((chunks, 3, sizes[1]))
    launch(moments_kernel, grid, y, *sizes, *cut, partials, **tile)
    _statistics.finalise(partials, moments, running, sizes[0] * sizes[2], y, sizes[2])


def apply(y, sizes, last, weight, bias, moments, eps, activation, slope, a):
    """a of y and given moments."""
    grid, _chunks, cut, tile = _cut(*sizes, last)
    launch(apply_kernel, grid, y, weight, bias, moments, eps, slope, *sizes, *cut, a, ACT=activation, **tile)


def sums(g, y, sizes, last, weight, bias, moments, eps, activation, slope, out):
    """out [2, C]: Σ dz and Σ dz·x̂ of g, the cotangent of a."""
    small, grid, chunks, cut, tile = _cut_of(y, sizes, last)
    partials = None if small else moments.new_empty((chunks, 2, sizes[1]))
    launch(
        sums_kernel, grid, g, y, weight, bias, moments, eps, slope, *sizes, *cut, partials, out, ACT=activation, **tile
    )
    if not small:
        _statistics.finish(partials, moments, None, eps, out)


def backward(g, y, sizes, last, weight, bias, moments, use_batch, eps, activation, slope, out, dy):
    """dy, and out [2, C] as in sums, of g, the cotangent of a."""
    small, grid, _chunks, cut, tile = _cut_of(y, sizes, last)
    options = {"ACT": activation, "USE_BATCH": use_batch, **tile}
    numbers = eps, slope, 1.0 / (sizes[0] * sizes[2]), *sizes, *cut
    if small:
        launch(small_backward_kernel, grid, g, y, weight, bias, moments, *numbers, out, dy, **options)
        return
    sums(g, y, sizes, last, weight, bias, moments, eps, activation, slope, out)
    launch(gradient_kernel, grid, g, y, weight, bias, moments, out, *numbers, dy, **options)
