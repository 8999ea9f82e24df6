"""Merges what tiles leave, fp32 [tiles, k, C], in an order that sizes alone set. Moments [2, C]: mean, biased var."""

import triton
import triton.language as tl
from ganfast.kernels._launch import cdiv, launch, power_of_2

TILES = 1024  # that a program holds at once


@triton.jit
def _partial(partials, which, k, begin, tiles, c, cn, BT: tl.constexpr):
    """Of tiles begin … begin + BT − 1 and channels c the number `which` of k."""
    t = begin + tl.arange(0, BT)
    at = t.to(tl.int64)[:, None] * (k * cn) + c[None, :]
    return tl.load(partials + at + which * cn, mask=(t < tiles)[:, None] & (c < cn)[None, :], other=0.0)


@triton.jit
def finalise_kernel(
    partials, first, step, moments, running_mean, running_var, batches, momentum, unbias, tiles, cn, BT: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """Moments of the tiles' (count, mean, M2), whose means are relative to first[c·step] where that is given."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    base = 0.0 if first is None else tl.load(first + c.to(tl.int64) * step, mask=c < cn, other=0.0).to(tl.float32)
    origin = tl.load(partials + cn + c, mask=c < cn, other=0.0) if first is None else 0.0
    number, moved = tl.zeros([BT, BC], tl.float32), tl.zeros([BT, BC], tl.float32)
    for begin in range(0, tiles, BT):
        n = _partial(partials, 0, 3, begin, tiles, c, cn, BT)
        number += n
        moved += n * (_partial(partials, 1, 3, begin, tiles, c, cn, BT) - origin)
    total = tl.maximum(tl.sum(number, axis=0), 1.0)
    shift = tl.sum(moved, axis=0) / total
    squares = tl.zeros([BT, BC], tl.float32)
    for begin in range(0, tiles, BT):
        n = _partial(partials, 0, 3, begin, tiles, c, cn, BT)
        off = _partial(partials, 1, 3, begin, tiles, c, cn, BT) - origin - shift
        squares += _partial(partials, 2, 3, begin, tiles, c, cn, BT) + n * off * off
    mean, var = base + origin + shift, tl.sum(squares, axis=0) / total
    put_moments(moments, mean, var, running_mean, running_var, batches, momentum, unbias, c, cn)


@triton.jit
def put_moments(moments, mean, var, running_mean, running_var, batches, momentum, unbias, c, cn):
    """Moments of channels c; running += momentum·(batch − running), batches += 1; momentum None: 1/batches as it is."""
    columns = c < cn
    tl.store(moments + c, mean, mask=columns)
    tl.store(moments + cn + c, var, mask=columns)
    if momentum is None:
        momentum = 0.0 if batches is None else 1.0 / tl.load(batches).to(tl.float32)
    elif batches is not None and tl.program_id(0) == 0:
        tl.store(batches, tl.load(batches) + 1)
    if running_mean is not None:
        keep = 1.0 - momentum
        after = tl.load(running_mean + c, mask=columns, other=0.0).to(tl.float32) * keep + momentum * mean
        tl.store(running_mean + c, after.to(running_mean.dtype.element_ty), mask=columns)
        after = tl.load(running_var + c, mask=columns, other=0.0).to(tl.float32) * keep + momentum * unbias * var
        tl.store(running_var + c, after.to(running_var.dtype.element_ty), mask=columns)


@triton.jit
def finish_kernel(partials, moments, gain, eps, sums, dmoments, tiles, cn, BT: tl.constexpr, BC: tl.constexpr):
    """put_sums of the tiles' (Σ dt, Σ dt·(x − mean))."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    total, along = tl.zeros([BT, BC], tl.float32), tl.zeros([BT, BC], tl.float32)
    for begin in range(0, tiles, BT):
        total += _partial(partials, 0, 2, begin, tiles, c, cn, BT)
        along += _partial(partials, 1, 2, begin, tiles, c, cn, BT)
    put_sums(tl.sum(total, axis=0), tl.sum(along, axis=0), moments, gain, eps, sums, dmoments, c, cn)


@triton.jit
def put_sums(total, along, moments, gain, eps, sums, dmoments, c, cn):
    """Writes Σ dt and Σ dt·x̂ of channels c, t = gain·x̂ + offset, and the cotangents of mean and variance."""
    columns = c < cn
    r = 1.0 / tl.sqrt(tl.load(moments + cn + c, mask=columns, other=1.0) + eps)
    tl.store(sums + c, total, mask=columns)
    tl.store(sums + cn + c, along * r, mask=columns)
    if dmoments is not None:
        scale = r if gain is None else r * tl.load(gain + c, mask=columns, other=0.0).to(tl.float32)
        tl.store(dmoments + c, -scale * total, mask=columns)
        tl.store(dmoments + cn + c, -0.5 * scale * r * r * along, mask=columns)


@triton.jit
def _add_up(parts, out, count, size, block, BT: tl.constexpr, BJ: tl.constexpr):
    j = block * BJ + tl.arange(0, BJ)
    total = tl.zeros([BT, BJ], tl.float32)
    for first in range(0, count, BT):
        total += _partial(parts, 0, 1, first, count, j, size, BT)
    tl.store(out + j, tl.sum(total, axis=0).to(out.dtype.element_ty), mask=j < size)


@triton.jit
def sum_kernel(parts, out, count, size, BT: tl.constexpr, BJ: tl.constexpr):
    _add_up(parts, out, count, size, tl.program_id(0), BT, BJ)


@triton.jit
def sums_kernel(
    parts, out, count, size, blocks, parts1, out1, count1, size1, blocks1, parts2, out2, count2, size2, blocks2,
    BT: tl.constexpr, BJ: tl.constexpr,
):  # fmt: skip
    """sum_kernel of up to three, of `blocks` programs each."""
    p = tl.program_id(0)
    if p < blocks:
        _add_up(parts, out, count, size, p, BT, BJ)
    if parts1 is not None and (p >= blocks) & (p < blocks + blocks1):
        _add_up(parts1, out1, count1, size1, p - blocks, BT, BJ)
    if parts2 is not None and p >= blocks + blocks1:
        _add_up(parts2, out2, count2, size2, p - blocks - blocks1, BT, BJ)


def _merge(kernel, partials, *arguments):
    """Launches the kernel over partials [tiles, k, C]: each step of its loop waits for memory once."""
    tiles, _, channels = partials.shape
    bt = min(TILES, power_of_2(tiles))
    bc, warps = max(4, min(16, 1024 // bt)), 8 if bt > 256 else 4
    launch(kernel, (cdiv(channels, bc),), partials, *arguments, tiles, channels, BT=bt, BC=bc, num_warps=warps)


def started(running_mean, running_var, batches, momentum, count):
    """What put_moments takes, given `count` elements a channel; increments batches for a cumulative average."""
    if momentum is None and batches is not None:
        batches.add_(1)
    return running_mean, running_var, batches, momentum, count / (count - 1) if count > 1 else float("nan")


def finalise(partials, moments, running_mean, running_var, batches, momentum, count, first=None, step=0):
    """moments [2, C] of partials [tiles, 3, C] over `count` elements a channel, and the running statistics."""
    running = started(running_mean, running_var, batches, momentum, count)
    _merge(finalise_kernel, partials, first, step, moments, *running)


def finish(partials, moments, gain, eps, sums, dmoments=None):
    """sums [2, C] (Σ dt, Σ dt·x̂) of partials [tiles, 2, C] (Σ dt, Σ dt·(x − mean)); dmoments [2, C] if given."""
    _merge(finish_kernel, partials, moments, gain, eps, sums, dmoments)


def total(parts, out):
    """out = parts [T, …] summed over T in a fixed order."""
    count, size = parts.shape[0], out.numel()
    bt = min(power_of_2(count), 256, max(1, 262144 // power_of_2(size)))
    bj = max(4, 1024 // bt)
    launch(sum_kernel, (cdiv(size, bj),), parts, out, count, size, BT=bt, BJ=bj, num_warps=4)


def totals(pairs):
    """total of up to three (parts, out) in one launch."""
    bt = min(power_of_2(max(parts.shape[0] for parts, _ in pairs)), 256)
    bj = max(4, 1024 // bt)
    arguments, grid = [], 0
    for parts, out in pairs:
        count, size = parts.shape[0], parts.numel() // parts.shape[0]
        arguments += [parts, out, count, size, cdiv(size, bj)]
        grid += arguments[-1]
    launch(sums_kernel, (grid,), *arguments, *[None] * (15 - len(arguments)), BT=bt, BJ=bj, num_warps=4)
