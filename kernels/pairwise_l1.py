"""pairwise_l1 in Triton: rows x meet all others y of one kernel b; sums in fp32, in a fixed order, no atomics.

    total_i = Σ_j e_ij [t_ij]                       e_ij = exp(−Σ_d |x_id − y_jd|),  s = sign(x_id − y_jd)
    out_id  = −Σ_j (a_i + b_j) e_ij [t_ij] s_ijd    t_ij = Σ_d s_ijd (cy_jd − cx_id)

x, y, cx, cy are fp32 [nk, kd, n], contiguous, so that neighbouring threads read neighbouring numbers; a, b fp32 [nk,
n] or None; total [rows, nk], out [rows, nk, kd] of any dtype. A tile is [others, rows]: a thread holds one row and a
run of others, so that sums over the others stay within the thread. Any kd: a program makes up to PART dimensions of
`out` and computes e anew for each such part. The launchers run on the current device and stream.
"""

import triton
import triton.language as tl
from ganfast.kernels import tuned
from ganfast.kernels._launch import cdiv, launch, power_of_2

BLOCK_I = 32
WARPS = 1
PART = 8  # dimensions of the gradient in one program, at most
globals().update(tuned.constants("pairwise_l1"))


def block_j(kd):
    """Others in a tile: so many that the differences in all dimensions fit in registers."""
    return 16 if kd <= 2 else 8 if kd <= PART else 4


def block_d(kd):
    """Dimensions of the gradient in one program, a power of 2."""
    return power_of_2(min(kd, PART))


@triton.jit
def _with_sign(v, difference):
    # v with the sign of `difference`, 0 where that is 0; nan stays nan
    return tl.where(difference == 0.0, 0.0, tl.where(difference < 0.0, -v, v))


@triton.jit
def _load(p, i, n):
    return tl.load(p + i, mask=i < n, other=0.0)


@triton.jit
def _minus(y, x, at, i, j, rows, others):
    # x_i − y_j of one dimension, [BLOCK_J, BLOCK_I]; at: its kernel and dimension
    return _load(x + at * rows, i, rows)[None, :] - _load(y + at * others, j, others)[:, None]


@triton.jit
def _add(distance, t, x, y, cx, cy, i, j, rows, others, at, DOUBLE: tl.constexpr):
    # one dimension more of the distance and of t
    difference = _minus(y, x, at, i, j, rows, others)
    distance += tl.abs(difference)
    if DOUBLE:
        t -= _with_sign(_minus(cy, cx, at, i, j, rows, others), difference)
    return distance, t


@triton.jit
def _meet(
    x, y, cx, cy, i, j, rows, others, b,
    KD: tl.constexpr, PART: tl.constexpr, DOUBLE: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr,
):  # fmt: skip
    # e, with DOUBLE e·t, [BLOCK_J, BLOCK_I]; 0 where there is no other
    distance = tl.zeros([BLOCK_J, BLOCK_I], tl.float32)
    t = tl.zeros([BLOCK_J, BLOCK_I], tl.float32)
    if KD <= PART:
        for d in tl.static_range(KD):
            distance, t = _add(distance, t, x, y, cx, cy, i, j, rows, others, b * KD + d, DOUBLE)
    else:
        for d in range(KD):
            distance, t = _add(distance, t, x, y, cx, cy, i, j, rows, others, b * KD + d, DOUBLE)
    e = tl.exp(-distance)
    if DOUBLE:
        e = e * t
    return tl.where((j < others)[:, None], e, 0.0)


@triton.jit
def sum_kernel(
    x, y, cx, cy, total, rows, others, nk,
    KD: tl.constexpr, PART: tl.constexpr, DOUBLE: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr,
):  # fmt: skip
    b = (tl.program_id(0) % nk).to(tl.int64)
    i = (tl.program_id(0) // nk).to(tl.int64) * BLOCK_I + tl.arange(0, BLOCK_I)
    found = tl.zeros([BLOCK_J, BLOCK_I], tl.float32)
    for first in range(0, others, BLOCK_J):
        j = first + tl.arange(0, BLOCK_J)
        found += _meet(x, y, cx, cy, i, j, rows, others, b, KD, PART, DOUBLE, BLOCK_I, BLOCK_J)
    tl.store(total + i * nk + b, tl.sum(found, axis=0).to(total.dtype.element_ty), mask=i < rows)


@triton.jit
def pull_kernel(
    x, y, a, b_others, cx, cy, out, rows, others, nk, HAS_A: tl.constexpr, HAS_B: tl.constexpr,
    KD: tl.constexpr, PART: tl.constexpr, DOUBLE: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    b = (tl.program_id(0) % nk).to(tl.int64)
    i = (tl.program_id(0) // nk).to(tl.int64) * BLOCK_I + tl.arange(0, BLOCK_I)
    part = tl.program_id(1) * PART
    column = tl.arange(0, BLOCK_D)
    gradient = tl.zeros([BLOCK_D, BLOCK_I], tl.float32)
    for first in range(0, others, BLOCK_J):
        j = first + tl.arange(0, BLOCK_J)
        w = tl.zeros([BLOCK_J, BLOCK_I], tl.float32)
        if HAS_A:
            w += _load(a + b * rows, i, rows)[None, :]
        if HAS_B:
            w += _load(b_others + b * others, j, others)[:, None]
        w = w * _meet(x, y, cx, cy, i, j, rows, others, b, KD, PART, DOUBLE, BLOCK_I, BLOCK_J)
        for d in tl.static_range(min(PART, KD)):
            at = b * KD + tl.minimum(part + d, KD - 1)  # the last part: what is beyond is not stored
            pulled = tl.sum(_with_sign(w, _minus(y, x, at, i, j, rows, others)), axis=0)
            gradient -= tl.where(column[:, None] == d, pulled[None, :], 0.0)
    at = (i * nk + b)[None, :] * KD + (part + column)[:, None]
    inside = (i < rows)[None, :] & (column < PART)[:, None] & (part + column < KD)[:, None]
    tl.store(out + at, gradient.to(out.dtype.element_ty), mask=inside)


def _sum(x, y, cx, cy, total, double):
    nk, kd, rows = x.shape
    if total.numel():
        launch(sum_kernel, (cdiv(rows, BLOCK_I) * nk,),
            x, y, cx, cy, total, rows, y.shape[2], nk, KD=kd, PART=PART, DOUBLE=double, BLOCK_I=BLOCK_I,
            BLOCK_J=block_j(kd), num_warps=WARPS,
        )  # fmt: skip


def _pull(x, y, a, b, cx, cy, out, double):
    nk, kd, rows = x.shape
    if out.numel():
        launch(pull_kernel, (cdiv(rows, BLOCK_I) * nk, cdiv(kd, PART)),
            x, y, x if a is None else a, x if b is None else b, cx, cy, out, rows, y.shape[2], nk,
            HAS_A=a is not None, HAS_B=b is not None, KD=kd, PART=PART, DOUBLE=double, BLOCK_I=BLOCK_I,
            BLOCK_J=block_j(kd), BLOCK_D=block_d(kd), num_warps=WARPS,
        )  # fmt: skip


def forward(x, y, o):
    """o [rows, nk]; y None: the rows themselves."""
    y = x if y is None else y
    _sum(x, y, x, y, o, False)


def backward(g, x, y, drows, dothers):
    """drows and dothers, contiguous; g [nk, rows]. y None: drows is the sum of both."""
    if y is None:
        _pull(x, x, g, g, x, x, drows, False)
    else:
        _pull(x, y, g, None, x, y, drows, False)
        _pull(y, x, None, g, y, x, dothers, False)


def double_backward(cx, cy, g, x, y, dg, drows, dothers):
    """dg, drows and dothers from the cotangents [nk, kd, n] of the backward's results."""
    if y is None:
        _sum(x, x, cx, cx, dg, True)
        _pull(x, x, g, g, cx, cx, drows, True)
    else:
        _sum(x, y, cx, cy, dg, True)
        _pull(x, y, g, None, cx, cy, drows, True)
        _pull(y, x, None, g, cy, cx, dothers, True)
