"""sigmoid_bce in Triton: both sides in one launch, sums in fp32 in a fixed order (programs, then one more launch).

Tensors are contiguous; an absent side is None. The launchers run on the current device and stream.
"""

import triton
import triton.language as tl
from ganfast.kernels import tuned
from ganfast.kernels._launch import cdiv, launch

BLOCK = 1024
STEPS = 4  # blocks that one program takes
WARPS = 8
globals().update(tuned.constants("sigmoid_bce"))
FINISH = 1024


@triton.jit
def _loss_of(x, t):
    # softplus(x) − t·x = x·([x > 0] − t) + log1p(e), e = exp(−|x|)
    e = tl.exp(-tl.abs(x))
    u = 1.0 + e
    log1p = tl.where(u == 1.0, e, tl.log(u) * (e / (u - 1.0)))  # exact for small e too
    return x * (tl.where(x > 0, 1.0, 0.0) - t) + log1p


@triton.jit
def _slopes_of(x, t):
    # σ(x) − t and σ'(x)
    e = tl.exp(-tl.abs(x))
    inverse = 1.0 / (1.0 + e)
    tail = e * inverse
    return tl.where(x > 0, (1.0 - t) - tail, tail - t), tail * inverse


@triton.jit
def _load(p, i, n, MASK: tl.constexpr):
    # a mask that is not known to be even over 16 bytes turns one wide load into narrow ones: only the last tile has it
    if MASK:
        return tl.load(p + i, mask=i < n, other=0.0).to(tl.float32)
    return tl.load(p + i).to(tl.float32)


@triton.jit
def _store(p, i, n, value, MASK: tl.constexpr):
    if MASK:
        tl.store(p + i, value.to(p.dtype.element_ty), mask=i < n)
    else:
        tl.store(p + i, value.to(p.dtype.element_ty))


@triton.jit
def _offsets(tile, step, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    return (tile.to(tl.int64) * STEPS + step) * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def _whole(tile, n, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    return (tile.to(tl.int64) + 1) * (BLOCK * STEPS) <= n


@triton.jit
def _loss_tile(x, n, t, tile, MASK: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    for step in tl.static_range(STEPS):
        i = _offsets(tile, step, BLOCK, STEPS)
        value = _loss_of(_load(x, i, n, MASK), t)
        if MASK:
            value = tl.where(i < n, value, 0.0)
        total += value
    return tl.sum(total, axis=0)


@triton.jit
def _loss_side(x, n, t, tile, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    if _whole(tile, n, BLOCK, STEPS):
        total = _loss_tile(x, n, t, tile, False, BLOCK, STEPS)
    else:
        total = _loss_tile(x, n, t, tile, True, BLOCK, STEPS)
    return total


@triton.jit
def loss_kernel(
    real, fake, n_real, n_fake, t_real, t_fake, tiles_real, partial, BLOCK: tl.constexpr, STEPS: tl.constexpr
):
    p = tl.program_id(0)
    if p < tiles_real:
        tl.store(partial + p, _loss_side(real, n_real, t_real, p, BLOCK, STEPS))
    else:
        tl.store(partial + p, _loss_side(fake, n_fake, t_fake, p - tiles_real, BLOCK, STEPS))


@triton.jit
def _backward_tile(scale, x, dx, n, t, tile, MASK: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    for step in tl.static_range(STEPS):
        i = _offsets(tile, step, BLOCK, STEPS)
        residual, _ = _slopes_of(_load(x, i, n, MASK), t)
        _store(dx, i, n, residual * scale, MASK)


@triton.jit
def _backward_side(scale, x, dx, n, t, tile, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    if _whole(tile, n, BLOCK, STEPS):
        _backward_tile(scale, x, dx, n, t, tile, False, BLOCK, STEPS)
    else:
        _backward_tile(scale, x, dx, n, t, tile, True, BLOCK, STEPS)


@triton.jit
def backward_kernel(
    g, real, fake, dreal, dfake, n_real, n_fake, over_real, over_fake, t_real, t_fake, tiles_real,
    BLOCK: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0)
    if p < tiles_real:
        _backward_side(tl.load(g) * over_real, real, dreal, n_real, t_real, p, BLOCK, STEPS)
    else:
        _backward_side(tl.load(g) * over_fake, fake, dfake, n_fake, t_fake, p - tiles_real, BLOCK, STEPS)


@triton.jit
def _double_tile(scale, c, x, dx, n, t, tile, MASK: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    for step in tl.static_range(STEPS):
        i = _offsets(tile, step, BLOCK, STEPS)
        cotangent = _load(c, i, n, MASK)  # zeros after the end: nothing is added
        residual, curvature = _slopes_of(_load(x, i, n, MASK), t)
        total += cotangent * residual
        _store(dx, i, n, cotangent * curvature * scale, MASK)
    return tl.sum(total, axis=0)


@triton.jit
def _double_side(scale, c, x, dx, n, t, tile, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    if _whole(tile, n, BLOCK, STEPS):
        total = _double_tile(scale, c, x, dx, n, t, tile, False, BLOCK, STEPS)
    else:
        total = _double_tile(scale, c, x, dx, n, t, tile, True, BLOCK, STEPS)
    return total


@triton.jit
def double_kernel(
    c_real, c_fake, g, real, fake, dreal, dfake, n_real, n_fake, over_real, over_fake, t_real, t_fake, tiles_real,
    partial, BLOCK: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0)
    if p < tiles_real:
        scale = tl.load(g) * over_real
        total = _double_side(scale, c_real, real, dreal, n_real, t_real, p, BLOCK, STEPS)
    else:
        scale = tl.load(g) * over_fake
        total = _double_side(scale, c_fake, fake, dfake, n_fake, t_fake, p - tiles_real, BLOCK, STEPS)
    tl.store(partial + p, total)


@triton.jit
def _range_sum(partial, start, end, FINISH: tl.constexpr):
    total = tl.zeros([FINISH], tl.float32)
    for first in range(start, end, FINISH):
        i = first + tl.arange(0, FINISH)
        total += tl.load(partial + i, mask=i < end, other=0.0)
    return tl.sum(total, axis=0)


@triton.jit
def finish_kernel(partial, tiles_real, tiles, over_real, over_fake, result, FINISH: tl.constexpr):
    real = _range_sum(partial, 0, tiles_real, FINISH) * over_real
    fake = _range_sum(partial, tiles_real, tiles, FINISH) * over_fake
    tl.store(result, real + fake)


def _count(x):
    return 0 if x is None else x.numel()


def _over(x):
    """1/n; 0 for an absent side, nan for an empty one (its mean is nan, as torch's)."""
    if x is None:
        return 0.0
    return 1.0 / x.numel() if x.numel() else float("nan")


def _tiles(x):
    return cdiv(_count(x), BLOCK * STEPS)


def programs(real, fake):
    """Programs of a launch, and floats of workspace for its partial sums."""
    return _tiles(real) + _tiles(fake)


def _pair(real, fake):
    """An absent side's pointer is never read: any of the same dtype will do."""
    return (fake, fake) if real is None else (real, real) if fake is None else (real, fake)


def _finish(real, fake, partial, result):
    launch(
        finish_kernel,
        (1,),
        partial,
        _tiles(real),
        programs(real, fake),
        _over(real),
        _over(fake),
        result,
        FINISH=FINISH,
    )


def loss(real, fake, t_real, t_fake, partial, out):
    """out, a scalar, from the logits; `partial` has `programs(real, fake)` floats."""
    if programs(real, fake):
        launch(loss_kernel, (programs(real, fake),),
            *_pair(real, fake), _count(real), _count(fake), t_real, t_fake, _tiles(real), partial,
            BLOCK=BLOCK, STEPS=STEPS, num_warps=WARPS,
        )  # fmt: skip
    _finish(real, fake, partial, out)


def backward(g, real, fake, t_real, t_fake, dreal, dfake):
    """dreal and dfake from the logits and the scalar g."""
    if programs(real, fake):
        launch(backward_kernel, (programs(real, fake),),
            g, *_pair(real, fake), dreal, dfake, _count(real), _count(fake), _over(real), _over(fake), t_real, t_fake,
            _tiles(real), BLOCK=BLOCK, STEPS=STEPS, num_warps=WARPS,
        )  # fmt: skip


def double_backward(c_real, c_fake, g, real, fake, t_real, t_fake, partial, dg, dreal, dfake):
    """dg, a scalar, and dreal, dfake from the cotangents c of the backward's results."""
    # a sum over an empty side is 0, as an absent one's
    c_real, real = (c_real, real) if _count(real) else (None, None)
    c_fake, fake = (c_fake, fake) if _count(fake) else (None, None)
    if programs(real, fake):
        launch(double_kernel, (programs(real, fake),),
            *_pair(c_real, c_fake), g, *_pair(real, fake), dreal, dfake, _count(real), _count(fake), _over(real),
            _over(fake), t_real, t_fake, _tiles(real), partial, BLOCK=BLOCK, STEPS=STEPS, num_warps=WARPS,
        )  # fmt: skip
    _finish(real, fake, partial, dg)
