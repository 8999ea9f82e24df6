"""pairwise_l1 in Triton: rows x meet all others y of one kernel b; sums in fp32, in a fixed order, no atomics.

    total_i = Σ_j e_ij [t_ij]                       e_ij = exp(−Σ_d |x_id − y_jd|),  s = sign(x_id − y_jd)
    out_id  = −Σ_j (a_i + b_j) e_ij [t_ij] s_ijd    t_ij = Σ_d s_ijd (cy_jd − cx_id)

x, y, cx, cy are [nk, kd, n], contiguous, so that neighbouring threads read neighbouring numbers; a, b [nk, n] or None;
total [rows, nk], out [rows, nk, kd]. Any kd: a program makes BLOCK_D dimensions of `out` and computes e anew for each
such part. The launchers run on the current device and stream.
"""

import triton
import triton.language as tl

BLOCK_I = 32
BLOCK_J = 64
WARPS = 4


@triton.jit
def _with_sign(v, difference):
    # v with the sign of `difference`, 0 where that is 0; nan stays nan
    return tl.where(difference == 0.0, 0.0, tl.where(difference < 0.0, -v, v))


@triton.jit
def _load(p, i, n):
    return tl.load(p + i, mask=i < n, other=0.0).to(tl.float32)


@triton.jit
def _meet(x, y, cx, cy, i, j, rows, others, start, kd, DOUBLE: tl.constexpr, BI: tl.constexpr, BJ: tl.constexpr):
    # e and e·t (e again without DOUBLE) of BI rows and BJ others, 0 where there is no other; start = b·kd
    distance = tl.zeros([BI, BJ], tl.float32)
    t = tl.zeros([BI, BJ], tl.float32)
    for d in range(kd):
        at = start + d
        difference = _load(x + at * rows, i, rows)[:, None] - _load(y + at * others, j, others)[None, :]
        distance += tl.abs(difference)
        if DOUBLE:
            c = _load(cy + at * others, j, others)[None, :] - _load(cx + at * rows, i, rows)[:, None]
            t += _with_sign(c, difference)
    e = tl.exp(-distance)
    if DOUBLE:
        e = e * t
    return tl.where((j < others)[None, :], e, 0.0)


@triton.jit
def sum_kernel(
    x, y, cx, cy, total, rows, others, nk, kd, DOUBLE: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr
):
    b = (tl.program_id(0) % nk).to(tl.int64)
    i = (tl.program_id(0) // nk).to(tl.int64) * BLOCK_I + tl.arange(0, BLOCK_I)
    found = tl.zeros([BLOCK_I, BLOCK_J], tl.float32)
    for first in range(0, others, BLOCK_J):
        j = first + tl.arange(0, BLOCK_J)
        found += _meet(x, y, cx, cy, i, j, rows, others, b * kd, kd, DOUBLE, BLOCK_I, BLOCK_J)
    tl.store(total + i * nk + b, tl.sum(found, axis=1).to(total.dtype.element_ty), mask=i < rows)


@triton.jit
def pull_kernel(
    x, y, a, b_others, cx, cy, out, rows, others, nk, kd, HAS_A: tl.constexpr, HAS_B: tl.constexpr,
    DOUBLE: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    b = (tl.program_id(0) % nk).to(tl.int64)
    i = (tl.program_id(0) // nk).to(tl.int64) * BLOCK_I + tl.arange(0, BLOCK_I)
    part = tl.program_id(1) * BLOCK_D
    column = part + tl.arange(0, BLOCK_D)
    gradient = tl.zeros([BLOCK_I, BLOCK_D], tl.float32)
    for first in range(0, others, BLOCK_J):
        j = first + tl.arange(0, BLOCK_J)
        w = tl.zeros([BLOCK_I, BLOCK_J], tl.float32)
        if HAS_A:
            w += _load(a + b * rows, i, rows)[:, None]
        if HAS_B:
            w += _load(b_others + b * others, j, others)[None, :]
        w = w * _meet(x, y, cx, cy, i, j, rows, others, b * kd, kd, DOUBLE, BLOCK_I, BLOCK_J)
        for d in range(part, tl.minimum(part + BLOCK_D, kd)):
            at = b * kd + d
            difference = _load(x + at * rows, i, rows)[:, None] - _load(y + at * others, j, others)[None, :]
            pulled = tl.sum(_with_sign(w, difference), axis=1)
            gradient -= tl.where(column[None, :] == d, pulled[:, None], 0.0)
    at = (i * nk + b)[:, None] * kd + column[None, :]
    tl.store(out + at, gradient.to(out.dtype.element_ty), mask=(i < rows)[:, None] & (column < kd)[None, :])


def block_d(kd):
    """Dimensions of the gradient that one program makes."""
    return min(16, triton.next_power_of_2(max(kd, 1)))


def _grid(x):
    nk, kd, rows = x.shape
    return triton.cdiv(rows, BLOCK_I) * nk, triton.cdiv(kd, block_d(kd))


def _sum(x, y, cx, cy, total, double):
    nk, kd, rows = x.shape
    if total.numel():
        sum_kernel[_grid(x)[:1]](
            x, y, cx, cy, total, rows, y.shape[2], nk, kd, DOUBLE=double, BLOCK_I=BLOCK_I, BLOCK_J=BLOCK_J,
            num_warps=WARPS,
        )  # fmt: skip


def _pull(x, y, a, b, cx, cy, out, double):
    nk, kd, rows = x.shape
    if out.numel():
        pull_kernel[_grid(x)](
            x, y, x if a is None else a, x if b is None else b, cx, cy, out, rows, y.shape[2], nk, kd,
            HAS_A=a is not None, HAS_B=b is not None, DOUBLE=double,
            BLOCK_I=BLOCK_I, BLOCK_J=BLOCK_J, BLOCK_D=block_d(kd), num_warps=WARPS,
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
