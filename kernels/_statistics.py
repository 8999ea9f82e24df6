"""What tiles leave behind, brought together: moments with the running statistics, sums of a backward, split sums.

Partial results are fp32, [tiles, k, C]; each sum is made in an order that the sizes alone decide. Moments are [2, C]: mean
and biased variance.
"""

import triton
import triton.language as tl
from ganfast.kernels._launch import cdiv, launch, power_of_2

TILES = 1024  # that a program holds at once


@triton.jit
def finalise_kernel(
    partials, first, step, moments, running_mean, running_var, batches, momentum, unbias, tiles, cn,
    CUMULATIVE: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Moments of the tiles' (count, mean, M2), whose means are relative to first[c·step] where that is given.

    Running statistics += momentum·(batch − running), the variance times unbias; batches += 1. CUMULATIVE: momentum is
    1/batches, which was incremented before.
    """
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    columns = c < cn
    if first is None:
        base = tl.zeros([BC], tl.float32)
        origin = tl.load(partials + cn + c, mask=columns, other=0.0)
    else:
        base = tl.load(first + c.to(tl.int64) * step, mask=columns, other=0.0).to(tl.float32)
        origin = tl.zeros([BC], tl.float32)
    number = tl.zeros([BT, BC], tl.float32)
    moved = tl.zeros([BT, BC], tl.float32)
    for begin in range(0, tiles, BT):
        t = begin + tl.arange(0, BT)
        at = t.to(tl.int64)[:, None] * (3 * cn) + c[None, :]
        inside = (t < tiles)[:, None] & columns[None, :]
        n = tl.load(partials + at, mask=inside, other=0.0)
        number += n
        moved += n * (tl.load(partials + at + cn, mask=inside, other=0.0) - origin[None, :])
    total = tl.maximum(tl.sum(number, axis=0), 1.0)
    shift = tl.sum(moved, axis=0) / total
    squares = tl.zeros([BT, BC], tl.float32)
    for begin in range(0, tiles, BT):
        t = begin + tl.arange(0, BT)
        at = t.to(tl.int64)[:, None] * (3 * cn) + c[None, :]
        inside = (t < tiles)[:, None] & columns[None, :]
        n = tl.load(partials + at, mask=inside, other=0.0)
        off = (tl.load(partials + at + cn, mask=inside, other=0.0) - origin[None, :]) - shift[None, :]
        squares += tl.load(partials + at + 2 * cn, mask=inside, other=0.0) + n * off * off
    mean, var = base + origin + shift, tl.sum(squares, axis=0) / total
    put_moments(moments, mean, var, running_mean, running_var, batches, momentum, unbias, c, cn, CUMULATIVE)


@triton.jit
def put_moments(
    moments, mean, var, running_mean, running_var, batches, momentum, unbias, c, cn, CUMULATIVE: tl.constexpr
):
    """Writes the moments of channels c and updates their running statistics, and the counter once."""
    columns = c < cn
    tl.store(moments + c, mean, mask=columns)
    tl.store(moments + cn + c, var, mask=columns)
    if CUMULATIVE:
        momentum = 1.0 / tl.load(batches).to(tl.float32)
    elif batches is not None:
        if tl.program_id(0) == 0:
            tl.store(batches, tl.load(batches) + 1)
    if running_mean is not None:
        before = tl.load(running_mean + c, mask=columns, other=0.0).to(tl.float32)
        after = before * (1.0 - momentum) + momentum * mean
        tl.store(running_mean + c, after.to(running_mean.dtype.element_ty), mask=columns)
        before = tl.load(running_var + c, mask=columns, other=0.0).to(tl.float32)
        after = before * (1.0 - momentum) + momentum * unbias * var
        tl.store(running_var + c, after.to(running_var.dtype.element_ty), mask=columns)


@triton.jit
def finish_kernel(
    partials, moments, gain, eps, sums, dmoments, tiles, cn, BT: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    """sums [2, C]: Σ dt and Σ dt·x̂ of the tiles' Σ dt and Σ dt·(x − mean), t = gain·x̂ + offset; dmoments likewise."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    total = tl.zeros([BT, BC], tl.float32)
    along = tl.zeros([BT, BC], tl.float32)
    for begin in range(0, tiles, BT):
        t = begin + tl.arange(0, BT)
        at = t.to(tl.int64)[:, None] * (2 * cn) + c[None, :]
        inside = (t < tiles)[:, None] & (c < cn)[None, :]
        total += tl.load(partials + at, mask=inside, other=0.0)
        along += tl.load(partials + at + cn, mask=inside, other=0.0)
    put_sums(tl.sum(total, axis=0), tl.sum(along, axis=0), moments, gain, eps, sums, dmoments, c, cn)


@triton.jit
def put_sums(total, along, moments, gain, eps, sums, dmoments, c, cn):
    """Writes Σ dt and Σ dt·x̂ of channels c, and the cotangents of mean and variance."""
    columns = c < cn
    r = 1.0 / tl.sqrt(tl.load(moments + cn + c, mask=columns, other=1.0) + eps)
    tl.store(sums + c, total, mask=columns)
    tl.store(sums + cn + c, along * r, mask=columns)
    if dmoments is not None:
        scale = r
        if gain is not None:
            scale = r * tl.load(gain + c, mask=columns, other=0.0).to(tl.float32)
        tl.store(dmoments + c, -scale * total, mask=columns)
        tl.store(dmoments + cn + c, -0.5 * scale * r * r * along, mask=columns)


@triton.jit
def sum_kernel(parts, out, count, size, BT: tl.constexpr, BJ: tl.constexpr):
    """out[j] = Σ_t parts[t, j], in a fixed order."""
    j = tl.program_id(0) * BJ + tl.arange(0, BJ)
    total = tl.zeros([BT, BJ], tl.float32)
    for first in range(0, count, BT):
        t = first + tl.arange(0, BT)
        at = t.to(tl.int64)[:, None] * size + j[None, :]
        total += tl.load(parts + at, mask=(t < count)[:, None] & (j < size)[None, :], other=0.0)
    tl.store(out + j, tl.sum(total, axis=0).to(out.dtype.element_ty), mask=j < size)


# --- launchers --------------------------------------------------------------------------------------------------------


def _tile(tiles):
    """Tiles at once and channels of a program: each step of the loop waits for memory once."""
    bt = min(TILES, power_of_2(tiles))
    return {"BT": bt, "BC": max(4, min(16, 1024 // bt)), "num_warps": 8 if bt > 256 else 4}


def finalise(partials, moments, running, count, first=None, step=0):
    """moments [2, C] of partials [tiles, 3, C] over `count` elements a channel; running: see running_of."""
    tiles, _, channels = partials.shape
    options = _tile(tiles)
    launch(
        finalise_kernel, (cdiv(channels, options["BC"]),), partials, first, step, moments, *running_of(running, count),
        tiles, channels, CUMULATIVE=is_cumulative(running), **options,
    )  # fmt: skip


def is_cumulative(running) -> bool:
    """Whether running = (mean, var, batches, momentum), each of which may be None, asks for the cumulative average."""
    return running[3] is None and running[2] is not None


def running_of(running, count):
    """What the kernels take for running, given `count` elements a channel."""
    *tensors, momentum = running
    return *tensors, 0.0 if momentum is None else momentum, count / (count - 1) if count > 1 else float("nan")


def finish(partials, moments, gain, eps, sums, dmoments=None):
    """sums [2, C] (Σ dt, Σ dt·x̂) of partials [tiles, 2, C] (Σ dt, Σ dt·(x − mean)); dmoments [2, C] if given."""
    tiles, _, channels = partials.shape
    options = _tile(tiles)
    grid = (cdiv(channels, options["BC"]),)
    launch(finish_kernel, grid, partials, moments, gain, eps, sums, dmoments, tiles, channels, **options)


def total(parts, out):
    """out = parts [T, …] summed over T in a fixed order."""
    count, size = parts.shape[0], out.numel()
    bt = min(power_of_2(count), 256, max(1, 262144 // power_of_2(size)))
    bj = max(4, 1024 // bt)
    launch(sum_kernel, (cdiv(size, bj),), parts, out, count, size, BT=bt, BJ=bj, num_warps=4)
