"""batch_norm_act in Triton: moments of the batch, normalisation with activation, and its backward; no atomics.

A tensor is [outer, channels, inner] as it lies: planes (inner = P), or rows with the channels last (inner = 1, LAST). A
program takes tiles of BO outer × BI inner elements: of one channel, or with LAST of BI channels. Moments are those of
each element's slot in the tile over the steps (Welford), merged at the end (Chan); `chunks` programs a channel leave
theirs in partials, which _statistics.py merges. Differences are to the channel's first element. A small tensor is read
by one program for each few channels, which then has their sums and goes over them again: one launch.
"""

from math import prod

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
def _place(
    channels, inner, outer_chunks, inner_blocks, steps, LAST: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr
):  # fmt: skip
    """A program's channel, or with LAST [BI], its chunk, first outer rows, a row's elements; and which there are."""
    p = tl.program_id(0)
    chunk = p % (outer_chunks * inner_blocks)
    rows = (chunk % outer_chunks) * (steps * BO) + tl.arange(0, BO)
    c = p // (outer_chunks * inner_blocks)
    if LAST:
        c = c * BI + tl.arange(0, BI)
        columns, inside, there = c.to(tl.int64), c < channels, c < channels
    else:
        i = (chunk // outer_chunks) * BI + tl.arange(0, BI)
        columns, inside, there = c.to(tl.int64) * inner + i, i < inner, True
    return c, there, chunk, rows, columns[None, :], inside[None, :]


@triton.jit
def _tile(step, rows, columns, inside, outer, channels, inner, BO: tl.constexpr):
    """Offsets of a step's tile, and which of its elements there are."""
    o = rows + step * BO
    return (o.to(tl.int64) * channels * inner)[:, None] + columns, (o < outer)[:, None] & inside


@triton.jit
def _load(p, at, mask):
    return tl.load(p + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _total(x, LAST: tl.constexpr):
    """Sum of a tile for each channel."""
    return tl.sum(x, axis=0) if LAST else tl.sum(tl.sum(x, axis=0), axis=0)


@triton.jit
def _affine(weight, bias, var, eps, c, there):
    """r = 1/√(var + eps), weight·r and bias of channels c."""
    r = 1.0 / tl.sqrt(var + eps)
    scale = r if weight is None else r * _load(weight, c, there)
    return r, scale, 0.0 if bias is None else _load(bias, c, there)


@triton.jit
def forward_kernel(
    y, outer, channels, inner, outer_chunks, inner_blocks, steps, partials, moments, running_mean, running_var, batches,
    momentum, unbias, weight, bias, eps, slope, a, STAGE: tl.constexpr, ACT: tl.constexpr, LAST: tl.constexpr,
    BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """Moments: partials[chunk, 0..2, channel] = number of elements, mean of the differences to the first one, M2;
    apply: a = act(weight·(y − mean)·r + bias) of given moments; whole: both, of all of the channels' elements.
    """
    c, there, chunk, rows, columns, inside = _place(channels, inner, outer_chunks, inner_blocks, steps, LAST, BO, BI)
    if STAGE == "apply":
        mean, var = _load(moments, c, there), _load(moments + channels, c, there)
    else:
        first = _load(y, c.to(tl.int64) * inner, there)
        means, m2 = tl.zeros([BO, BI], tl.float32), tl.zeros([BO, BI], tl.float32)
        for step in range(steps):
            at, mask = _tile(step, rows, columns, inside, outer, channels, inner, BO)
            d = tl.where(mask, _load(y, at, mask) - first - means, 0.0)
            share = 1.0 / (step + 1)
            means += d * share
            m2 += d * (d * (1.0 - share))  # d² may overflow: 0 · inf is NaN
        seen = tl.minimum(tl.maximum((outer - rows + BO - 1) // BO, 0), steps).to(tl.float32)[:, None]
        count = tl.where(inside, seen, 0.0)
        number = _total(count, LAST)
        middle = _total(count * means, LAST) / tl.maximum(number, 1.0)
        d = means - middle
        m2 = _total(m2 + count * d * d, LAST)
        if STAGE == "moments":
            p = partials + chunk.to(tl.int64) * 3 * channels + c
            tl.store(p, number, mask=there)
            tl.store(p + channels, middle, mask=there)
            tl.store(p + 2 * channels, m2, mask=there)
        else:
            mean, var = first + middle, m2 / tl.maximum(number, 1.0)
            _statistics.put_moments(
                moments, mean, var, running_mean, running_var, batches, momentum, unbias, c, channels
            )
    if STAGE != "moments":
        _r, scale, shift = _affine(weight, bias, var, eps, c, there)
        for step in range(steps):
            at, mask = _tile(step, rows, columns, inside, outer, channels, inner, BO)
            z = (_load(y, at, mask) - mean) * scale + shift
            tl.store(a + at, act.activate(z, slope, ACT).to(a.dtype.element_ty), mask=mask)


@triton.jit
def backward_kernel(
    g, y, outer, channels, inner, outer_chunks, inner_blocks, steps, weight, bias, moments, eps, slope, share,
    partials, sums, dy, STAGE: tl.constexpr, ACT: tl.constexpr, USE_BATCH: tl.constexpr, LAST: tl.constexpr,
    BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """Sums: partials[chunk, 0..1, channel] = Σ dz, Σ dz·(y − mean), dz = g·act'; gradient, of sums = Σ dz, Σ dz·x̂:
    dy = scale·(dz − share·(Σ dz + x̂·Σ dz·x̂)), share = 1/n, or of given statistics scale·dz; whole: both.
    """
    c, there, chunk, rows, columns, inside = _place(channels, inner, outer_chunks, inner_blocks, steps, LAST, BO, BI)
    mean = _load(moments, c, there)
    r, scale, shift = _affine(weight, bias, _load(moments + channels, c, there), eps, c, there)
    if STAGE != "gradient":
        total, along = tl.zeros([BO, BI], tl.float32), tl.zeros([BO, BI], tl.float32)
        for step in range(steps):
            at, mask = _tile(step, rows, columns, inside, outer, channels, inner, BO)
            d = _load(y, at, mask) - mean
            dz = tl.where(mask, act.sloped(_load(g, at, mask), d * scale + shift, slope, ACT), 0.0)
            total += dz
            along += dz * d
        total, along = _total(total, LAST), _total(along, LAST)
        if STAGE == "sums":
            p = partials + chunk.to(tl.int64) * 2 * channels + c
            tl.store(p, total, mask=there)
            tl.store(p + channels, along, mask=there)
        else:
            _statistics.put_sums(total, along, moments, weight, eps, sums, None, c, channels)
            along *= r
    elif USE_BATCH:
        total, along = _load(sums, c, there), _load(sums + channels, c, there)
    if dy is not None:
        bend, lift = 0.0, 0.0
        if USE_BATCH:
            bend, lift = -scale * r * share * along, -scale * share * total
        for step in range(steps):
            at, mask = _tile(step, rows, columns, inside, outer, channels, inner, BO)
            d = _load(y, at, mask) - mean
            dz = act.sloped(_load(g, at, mask), d * scale + shift, slope, ACT)
            tl.store(dy + at, (dz * scale + d * bend + lift).to(dy.dtype.element_ty), mask=mask)


# --- launchers --------------------------------------------------------------------------------------------------------


def _power(n, most):
    return min(power_of_2(max(n, 1)), most)


def _cut(outer, channels, inner, last, small=0):
    """The grid, chunks a channel, and what every kernel over the tensor takes: sizes, and a tile's constants.

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
    cut = outer, channels, inner, outer_chunks, inner_blocks, steps
    tile = {"LAST": last, "BO": height, "BI": width, "num_warps": min(max(height * width // 512, 1), 8)}
    return (groups * inner_blocks * outer_chunks,), outer_chunks * inner_blocks, cut, tile


def _cut_of(sizes, last, item):
    """_cut, and whether it is that of a small tensor; item: bytes of a number."""
    size = prod(sizes) * item
    if size <= SMALL:
        grid, chunks, *rest = _cut(*sizes, last, item)
        if chunks == 1 and size <= SHARE * grid[0]:
            return True, grid, chunks, *rest
    return False, *_cut(*sizes, last)


def is_small(sizes, last, item) -> bool:
    """Whether forward is one launch."""
    return _cut_of(sizes, last, item)[0]


def forward(
    y, sizes, last, weight, bias, running_mean, running_var, batches, momentum, eps, activation, slope, a, moments
):
    """a, moments [2, C] and the running statistics of y; sizes: outer, channels, inner, none of them 0."""
    small, grid, _chunks, cut, tile = _cut_of(sizes, last, y.element_size())
    running = running_mean, running_var, batches, momentum
    if not small:
        statistics(y, sizes, last, *running, moments)
        apply(y, sizes, last, weight, bias, moments, eps, activation, slope, a)
        return
    running = _statistics.started(*running, sizes[0] * sizes[2])
    rest = moments, *running, weight, bias, eps, slope, a
    launch(forward_kernel, grid, y, *cut, None, *rest, STAGE="whole", ACT=activation, **tile)


def statistics(y, sizes, last, running_mean, running_var, batches, momentum, moments):
    """moments [2, C] and the running statistics of y."""
    grid, chunks, cut, tile = _cut(*sizes, last)
    partials = moments.new_empty((chunks, 3, sizes[1]))
    launch(forward_kernel, grid, y, *cut, partials, *[None] * 11, STAGE="moments", ACT=None, **tile)
    running = running_mean, running_var, batches, momentum
    _statistics.finalise(partials, moments, *running, sizes[0] * sizes[2], y, sizes[2])


def apply(y, sizes, last, weight, bias, moments, eps, activation, slope, a):
    """a of y and given moments."""
    grid, _chunks, cut, tile = _cut(*sizes, last)
    rest = moments, *[None] * 5, weight, bias, eps, slope, a
    launch(forward_kernel, grid, y, *cut, None, *rest, STAGE="apply", ACT=activation, **tile)


def sums(g, y, sizes, last, weight, bias, moments, eps, activation, slope, out):
    """out [2, C]: Σ dz and Σ dz·x̂ of g, the cotangent of a."""
    backward(g, y, sizes, last, weight, bias, moments, False, eps, activation, slope, None, out)


def backward(g, y, sizes, last, weight, bias, moments, use_batch, eps, activation, slope, dy, sums):
    """dy, unless it is None, and sums [2, C] (Σ dz, Σ dz·x̂) of g, the cotangent of a."""
    small, grid, chunks, cut, tile = _cut_of(sizes, last, y.element_size())
    arguments = g, y, *cut, weight, bias, moments, eps, slope, 1.0 / (sizes[0] * sizes[2])
    options = {"ACT": activation, "USE_BATCH": use_batch, **tile}
    if small:
        launch(backward_kernel, grid, *arguments, None, sums, dy, STAGE="whole", **options)
        return
    partials = moments.new_empty((chunks, 2, sizes[1]))
    launch(backward_kernel, grid, *arguments, partials, None, None, STAGE="sums", **options | {"USE_BATCH": False})
    _statistics.finish(partials, moments, None, eps, sums)
    if dy is not None:
        launch(backward_kernel, grid, *arguments, None, sums, dy, STAGE="gradient", **options)
