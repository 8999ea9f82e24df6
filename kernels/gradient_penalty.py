"""gradient_penalty in Triton: norms, penalty and seed, and both derivatives; sums in a fixed order, no atomics.

A sample of at most HOLD elements is one program's: read once, summed, scaled from registers. A larger one is cut into
programs that leave their sums in a workspace, and a second launch scales. A last launch of one program adds the batch.
g, c, seed and dg have one order in memory with the samples one after another; an absent tensor is None.
φ is given as scale = 2w/B, its target and whether it is one-sided.
"""

import triton
import triton.language as tl
from ganfast.kernels import tuned
from ganfast.kernels._launch import cdiv, launch, power_of_2

HOLD = 16384
BLOCK = 4096  # of a program that loops
globals().update(tuned.constants("gradient_penalty"))
MAX_CHUNKS = 256  # programs a sample at most: a program adds their sums with one load
FINISH = 1024
# a tile's sum of squares outside of these has overflowed in fp32, or may have lost what underflowed
SMALLEST = tl.constexpr(1e-25)
LARGEST = tl.constexpr(1e37)
NORMAL = tl.constexpr(1.17549435e-38)  # the smallest normal number


@triton.jit
def _inverse_of(n):
    return tl.where(n < NORMAL, 0.0, 1.0 / n)


@triton.jit
def _curve_of(n, scale, target, ONE_SIDED: tl.constexpr):
    """1/n, φ'/B, φ'/(B·n) and φ''/B − φ'/(B·n)."""
    inverse = _inverse_of(n)
    slope = scale * (n - target)
    flat = tl.where(target == 0.0, scale, slope * inverse)
    bend = tl.where(target == 0.0, 0.0, scale * target * inverse)
    if ONE_SIDED:
        below = n < target
        slope = tl.where(below, 0.0, slope)
        flat = tl.where(below, 0.0, flat)
        bend = tl.where(below, 0.0, bend)
    return inverse, slope, flat, bend


@triton.jit
def _load(p, i, size):
    return tl.load(p + i, mask=i < size, other=0.0).to(tl.float32)


@triton.jit
def _store(p, i, size, value):
    tl.store(p + i, value.to(p.dtype.element_ty), mask=i < size)


@triton.jit
def _squares(x):
    """Σ x² in fp64: of fp32's sum, or of a scaled one where that is out of range."""
    total = tl.sum(x * x, axis=0)
    result = total.to(tl.float64)
    if (total < SMALLEST) | (total > LARGEST):
        largest = tl.max(tl.abs(x), axis=0)
        y = x / tl.where(largest > 0.0, largest, 1.0)
        wide = largest.to(tl.float64)
        result = tl.where(largest == float("inf"), wide, wide * wide * tl.sum(y * y, axis=0).to(tl.float64))
    return result


@triton.jit
def _sample_sum(partial, sample, chunks, MAX_CHUNKS: tl.constexpr):
    i = tl.arange(0, MAX_CHUNKS)
    return tl.sum(tl.load(partial + sample.to(tl.int64) * chunks + i, mask=i < chunks, other=0.0), axis=0)


@triton.jit
def _first(cotangents, sample, HAS: tl.constexpr):
    value = 0.0
    if HAS:
        value = tl.load(cotangents + sample)
    return value


@triton.jit
def whole_kernel(
    g, size, scale, target, norms, seed, ONE_SIDED: tl.constexpr, HAS_SEED: tl.constexpr, BLOCK: tl.constexpr
):
    """One program a sample: its norm and its seed."""
    sample = tl.program_id(0)
    offset = sample.to(tl.int64) * size
    i = tl.arange(0, BLOCK)
    x = _load(g + offset, i, size)
    n = tl.sqrt(_squares(x)).to(tl.float32)
    tl.store(norms + sample, n)
    if HAS_SEED:
        inverse, slope, _flat, _bend = _curve_of(n, scale, target, ONE_SIDED)
        _store(seed + offset, i, size, x * inverse * slope)


@triton.jit
def squares_kernel(g, size, chunks, steps, partial, BLOCK: tl.constexpr):
    """partial[program] = the sum of squares of its part of its sample."""
    p = tl.program_id(0)
    offset = (p // chunks).to(tl.int64) * size
    total = tl.zeros([], tl.float64)
    for step in range(steps):
        i = ((p % chunks).to(tl.int64) * steps + step) * BLOCK + tl.arange(0, BLOCK)
        total += _squares(_load(g + offset, i, size))
    tl.store(partial + p, total)


@triton.jit
def scale_kernel(
    c_penalty, c_norms, g, size, chunks, steps, scale, target, partial, norms, out,
    ONE_SIDED: tl.constexpr, HAS_PENALTY: tl.constexpr, HAS_NORMS: tl.constexpr, SEED: tl.constexpr,
    HAS_OUT: tl.constexpr, BLOCK: tl.constexpr, MAX_CHUNKS: tl.constexpr,
):  # fmt: skip
    """out = (c_penalty·φ'/B + c_norms)·g/n. SEED: the norms are made of `partial` and written, out is the seed."""
    p = tl.program_id(0)
    sample = p // chunks
    if SEED:
        n = tl.sqrt(_sample_sum(partial, sample, chunks, MAX_CHUNKS)).to(tl.float32)
        if p % chunks == 0:
            tl.store(norms + sample, n)
    else:
        n = tl.load(norms + sample)
    if HAS_OUT:
        inverse, slope, _flat, _bend = _curve_of(n, scale, target, ONE_SIDED)
        if not SEED:
            slope = _first(c_penalty, 0, HAS_PENALTY) * slope + _first(c_norms, sample, HAS_NORMS)
        offset = sample.to(tl.int64) * size
        for step in range(steps):
            i = ((p % chunks).to(tl.int64) * steps + step) * BLOCK + tl.arange(0, BLOCK)
            _store(out + offset, i, size, _load(g + offset, i, size) * inverse * slope)


@triton.jit
def _mix(
    c_penalty, c_norms, sample, n, s, scale, target, ONE_SIDED, HAS_PENALTY: tl.constexpr, HAS_NORMS: tl.constexpr
):
    """1/n and the factors of g/n and of c in the second derivative."""
    inverse, _slope, flat, bend = _curve_of(n, scale, target, ONE_SIDED)
    cp = _first(c_penalty, 0, HAS_PENALTY)
    cn = _first(c_norms, sample, HAS_NORMS) * inverse
    return inverse, (cp * bend - cn) * s, cp * flat + cn


@triton.jit
def whole_double_kernel(
    c, c_penalty, c_norms, g, norms, size, scale, target, dc_norms, dg,
    ONE_SIDED: tl.constexpr, HAS_PENALTY: tl.constexpr, HAS_NORMS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The second derivative, one program a sample."""
    sample = tl.program_id(0)
    offset = sample.to(tl.int64) * size
    i = tl.arange(0, BLOCK)
    x, y = _load(g + offset, i, size), _load(c + offset, i, size)
    n = tl.load(norms + sample)
    s = tl.sum(x * _inverse_of(n) * y, axis=0)
    tl.store(dc_norms + sample, s)
    inverse, along, across = _mix(c_penalty, c_norms, sample, n, s, scale, target, ONE_SIDED, HAS_PENALTY, HAS_NORMS)
    _store(dg + offset, i, size, x * inverse * along + y * across)


@triton.jit
def products_kernel(c, g, norms, size, chunks, steps, partial, BLOCK: tl.constexpr):
    """partial[program] = Σ g·c/n of its part of its sample."""
    p = tl.program_id(0)
    sample = p // chunks
    offset = sample.to(tl.int64) * size
    inverse = _inverse_of(tl.load(norms + sample))
    total = tl.zeros([], tl.float64)
    for step in range(steps):
        i = ((p % chunks).to(tl.int64) * steps + step) * BLOCK + tl.arange(0, BLOCK)
        total += tl.sum(_load(g + offset, i, size) * inverse * _load(c + offset, i, size), axis=0).to(tl.float64)
    tl.store(partial + p, total)


@triton.jit
def mix_kernel(
    c, c_penalty, c_norms, g, norms, size, chunks, steps, scale, target, partial, dc_norms, dg,
    ONE_SIDED: tl.constexpr, HAS_PENALTY: tl.constexpr, HAS_NORMS: tl.constexpr, BLOCK: tl.constexpr,
    MAX_CHUNKS: tl.constexpr,
):  # fmt: skip
    """The second derivative from the sums in `partial`."""
    p = tl.program_id(0)
    sample = p // chunks
    s = _sample_sum(partial, sample, chunks, MAX_CHUNKS).to(tl.float32)
    if p % chunks == 0:
        tl.store(dc_norms + sample, s)
    inverse, along, across = _mix(
        c_penalty, c_norms, sample, tl.load(norms + sample), s, scale, target, ONE_SIDED, HAS_PENALTY, HAS_NORMS
    )
    offset = sample.to(tl.int64) * size
    for step in range(steps):
        i = ((p % chunks).to(tl.int64) * steps + step) * BLOCK + tl.arange(0, BLOCK)
        x, y = _load(g + offset, i, size), _load(c + offset, i, size)
        _store(dg + offset, i, size, x * inverse * along + y * across)


@triton.jit
def finish_kernel(
    norms,
    s,
    batch,
    empty,
    scale,
    target,
    result,
    ONE_SIDED: tl.constexpr,
    DERIVATIVE: tl.constexpr,
    FINISH: tl.constexpr,
):
    """Σ φ(n_i)/B, or Σ s_i·φ'(n_i)/B; `empty`, what an empty batch gives, is added."""
    total = tl.zeros([FINISH], tl.float32)
    for first in range(0, batch, FINISH):
        i = first + tl.arange(0, FINISH)
        n = tl.load(norms + i, mask=i < batch, other=0.0)
        _inverse, slope, _flat, _bend = _curve_of(n, scale, target, ONE_SIDED)
        if DERIVATIVE:
            value = tl.load(s + i, mask=i < batch, other=0.0) * slope
        else:
            excess = n - target
            value = 0.5 * scale * excess * excess
            if ONE_SIDED:
                value = tl.where(excess < 0.0, 0.0, value)
        total += tl.where(i < batch, value, 0.0)
    tl.store(result, tl.sum(total, axis=0) + empty)


def _held(size):
    """The tile that holds a sample, and its warps: 16 elements a thread, of the largest 32."""
    block = max(power_of_2(size), 128)
    return {"BLOCK": block, "num_warps": min(max(block // 512, 1), 16)}


def _cut(size):
    """Programs a sample, and the blocks that each of them takes."""
    blocks = max(cdiv(size, BLOCK), 1)
    steps = cdiv(blocks, MAX_CHUNKS)
    return cdiv(blocks, steps), steps


def workspace(batch, size):
    """Doubles of workspace."""
    return batch * _cut(size)[0] if size > HOLD else 0


def _finish(norms, s, batch, scale, target, one_sided, result):
    launch(finish_kernel, (1,),
        norms, norms if s is None else s, batch, scale if s is None and batch == 0 else 0.0, scale, target, result,
        ONE_SIDED=one_sided, DERIVATIVE=s is not None, FINISH=FINISH,
    )  # fmt: skip


def forward(g, batch, size, scale, target, one_sided, partial, penalty, norms, seed):
    """penalty (a scalar), norms [B] and seed (None: not wanted) of g; `partial` has workspace(batch, size) doubles."""
    phi = {"ONE_SIDED": one_sided}
    if batch and size <= HOLD:
        out = g if seed is None else seed
        launch(
            whole_kernel, (batch,), g, size, scale, target, norms, out, HAS_SEED=seed is not None, **phi, **_held(size)
        )
    elif batch:
        chunks, steps = _cut(size)
        launch(squares_kernel, (batch * chunks,), g, size, chunks, steps, partial, BLOCK=BLOCK, num_warps=8)
        _scale(None, None, g, batch, size, scale, target, one_sided, partial, norms, seed)
    _finish(norms, None, batch, scale, target, one_sided, penalty)


def _scale(c_penalty, c_norms, g, batch, size, scale, target, one_sided, partial, norms, out):
    chunks, steps = _cut(size)
    launch(scale_kernel, (batch * chunks,),
        norms if c_penalty is None else c_penalty, norms if c_norms is None else c_norms, g, size, chunks, steps, scale,
        target, norms if partial is None else partial, norms, g if out is None else out, ONE_SIDED=one_sided,
        HAS_PENALTY=c_penalty is not None, HAS_NORMS=c_norms is not None, SEED=partial is not None,
        HAS_OUT=out is not None, BLOCK=BLOCK, MAX_CHUNKS=MAX_CHUNKS, num_warps=8,
    )  # fmt: skip


def backward(c_penalty, c_norms, g, norms, batch, size, scale, target, one_sided, dg):
    """dg = (c_penalty·φ'/B + c_norms)·g/n; c_penalty, a scalar, or c_norms [B] may be None."""
    if dg.numel():
        _scale(c_penalty, c_norms, g, batch, size, scale, target, one_sided, None, norms, dg)


def double_backward(
    c, c_penalty, c_norms, g, norms, batch, size, scale, target, one_sided, partial, dc_penalty, dc_norms, dg
):
    """From c, the cotangent of that dg, those of c_penalty, c_norms and g."""
    cotangents = norms if c_penalty is None else c_penalty, norms if c_norms is None else c_norms
    flags = {"ONE_SIDED": one_sided, "HAS_PENALTY": c_penalty is not None, "HAS_NORMS": c_norms is not None}
    if batch and size <= HOLD:
        launch(
            whole_double_kernel, (batch,), c, *cotangents, g, norms, size, scale, target, dc_norms, dg, **flags,
            **_held(size),
        )  # fmt: skip
    elif batch:
        chunks, steps = _cut(size)
        launch(products_kernel, (batch * chunks,), c, g, norms, size, chunks, steps, partial, BLOCK=BLOCK, num_warps=8)
        launch(mix_kernel, (batch * chunks,),
            c, *cotangents, g, norms, size, chunks, steps, scale, target, partial, dc_norms, dg, **flags,
            BLOCK=BLOCK, MAX_CHUNKS=MAX_CHUNKS, num_warps=8,
        )  # fmt: skip
    _finish(norms, dc_norms, batch, scale, target, one_sided, dc_penalty)
