"""conv_bn_act in Triton: convolutions as implicit GEMMs, with what comes before and after them in the same launch.

    forward           y = out_act(conv(u, w) + bias), u = in_act(scale·x + shift); or y and its statistics; or
                      the tangent y = out_act'(saved)·conv(u, w)
    backward_data     dt = ∂conv/∂u·dz · in_act', dx = dt·scale, dscale = Σ dt·x, dshift = Σ dt
    backward_weight   dw = ∂conv/∂w·dz, and bias_gradient: Σ dz;   dz = dy·act'(y)  or  dy + p + q·(y − mean)

Activations are views [N, H, W, C], contiguous (channels_last memory). w is a view [kH, kW, C_k, C_n]: C_k channels go
into the GEMM and C_n come out, one of the last two strides is 1 (C_k: best for fp32); dw is [C_s, kH, kW, C_l],
contiguous. So a channels_last weight needs no copy: [C_out, C_in, kH, kW] of a plain convolution and [C_in, C_out, kH,
kW] of a transposed one both lie in memory as dw does. Vectors are fp32, sums are fp32 in a fixed order, no atomics.

A plain convolution and the data gradient of a transposed one gather; a transposed convolution and the data gradient of
a plain one go by phases: no product with a structural zero, all s² phases in one launch (_implicit_gemm.py). Launchers
run on the current device and stream; geometry is (transposed, stride, padding) of the layer.
"""

from math import gcd

import triton
import triton.language as tl
from ganfast.kernels import _activations as act
from ganfast.kernels import _implicit_gemm as gemm
from ganfast.kernels import tuned
from ganfast.kernels._launch import cdiv, launch, power_of_2

# --- forward and data gradient ----------------------------------------------------------------------------------------


@triton.jit
def forward_kernel(
    x, a, b, in_slope, w, w_y, w_x, w_c, bias, saved, y, partials, out_slope, images, hi, wi, ho, wo, ck, cn,
    KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr,
    PHASES: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, PRECISION: tl.constexpr, UNIT_K: tl.constexpr,
    UNIT_N: tl.constexpr, UNIT_W: tl.constexpr, K_LAST: tl.constexpr, FLAT: tl.constexpr, EVEN: tl.constexpr,
    WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    ck, cn = ck * UNIT_K, cn * UNIT_N  # what they are divisible by, told to the compiler
    part, n, m, real, image, iy, ix, ky, kx, taps_y, taps_x = gemm.tile(
        images, ho, wo, cn, KH, KW, SY, SX, PY, PX, PHASES, WIDE, BM, BN
    )
    total = gemm.gather(
        x, None, a, b, None, in_slope, w, w_y * UNIT_W, w_x * UNIT_W, w_c * UNIT_W, n, real, image, iy, ix, ky, kx,
        taps_y, taps_x, hi, wi, ck, cn, IN, SY, SX, PHASES, K_LAST, FLAT, EVEN, PRECISION, BM, BN, BK,
    )  # fmt: skip
    if bias is not None:
        total += gemm.vector(bias, n, n < cn).to(tl.float32)[None, :]
    at = m[:, None] * cn + n[None, :]
    inside = real[:, None] & (n < cn)[None, :]
    if saved is not None:
        total = act.through(total, tl.load(saved + at, mask=inside, other=0.0).to(tl.float32), out_slope, OUT)
    else:
        total = act.activate(total, out_slope, OUT)
    result = total.to(y.dtype.element_ty)
    tl.store(y + at, result, mask=inside)
    if partials is not None:  # count, mean and squared deviations of this tile, [3, cn]
        wide = tl.where(real[:, None], result.to(tl.float32), 0.0)
        count = tl.sum(real.to(tl.float32), axis=0)
        mean = tl.sum(wide, axis=0) / tl.maximum(count, 1.0)
        deviation = tl.where(real[:, None], wide - mean[None, :], 0.0)
        at = part.to(tl.int64) * 3 * cn + n
        tl.store(partials + at, tl.zeros([BN], tl.float32) + count, mask=n < cn)
        tl.store(partials + at + cn, mean, mask=n < cn)
        tl.store(partials + at + 2 * cn, tl.sum(deviation * deviation, axis=0), mask=n < cn)


@triton.jit
def backward_data_kernel(
    dy, y, p, q, mean, out_slope, w, w_y, w_x, w_c, x, scale, shift, in_slope, dx, partials, images, hi, wi, ho, wo,
    ck, cn, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr, PY: tl.constexpr,
    PX: tl.constexpr, PHASES: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, PRECISION: tl.constexpr,
    UNIT_K: tl.constexpr, UNIT_N: tl.constexpr, UNIT_W: tl.constexpr, K_LAST: tl.constexpr, FLAT: tl.constexpr,
    EVEN: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    # hi, wi: of dy, which goes in; ho, wo: of dx, which comes out
    ck, cn = ck * UNIT_K, cn * UNIT_N
    part, n, m, real, image, iy, ix, ky, kx, taps_y, taps_x = gemm.tile(
        images, ho, wo, cn, KH, KW, SY, SX, PY, PX, PHASES, WIDE, BM, BN
    )
    total = gemm.gather(
        dy, y, p, q, mean, out_slope, w, w_y * UNIT_W, w_x * UNIT_W, w_c * UNIT_W, n, real, image, iy, ix, ky, kx,
        taps_y, taps_x, hi, wi, ck, cn, OUT, SY, SX, PHASES, K_LAST, FLAT, EVEN, PRECISION, BM, BN, BK,
    )  # fmt: skip
    at = m[:, None] * cn + n[None, :]
    inside = real[:, None] & (n < cn)[None, :]
    if scale is None:
        tl.store(dx + at, total.to(dx.dtype.element_ty), mask=inside)
    else:
        before = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        times = gemm.vector(scale, n, n < cn)[None, :]
        u = before * times + gemm.vector(shift, n, n < cn)[None, :]
        dt = tl.where(inside, act.sloped(total, u, in_slope, IN), 0.0)
        tl.store(dx + at, (dt * times).to(dx.dtype.element_ty), mask=inside)
        if partials is not None:  # of dscale and dshift, [2, cn]
            at = part.to(tl.int64) * 2 * cn + n
            tl.store(partials + at, tl.sum(dt * before, axis=0), mask=n < cn)
            tl.store(partials + at + cn, tl.sum(dt, axis=0), mask=n < cn)


# --- weight gradient --------------------------------------------------------------------------------------------------


@triton.jit
def backward_weight_kernel(
    s_x, s_y, s_a, s_b, s_mean, l_x, l_y, l_a, l_b, l_mean, s_slope, l_slope, out, images, hs, ws, hl, wl, cs, cl, per,
    KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr,
    S_ACT: tl.constexpr, L_ACT: tl.constexpr, PRECISION: tl.constexpr, UNIT_S: tl.constexpr, UNIT_L: tl.constexpr,
    FLAT: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """out[split, C_s, kH, kW, C_l] = Σ s[m] ⊗ l[m·stride − padding + k] over pixels m of s, `per` steps a split.

    s, l: input and dz of a transposed convolution, dz and input of a plain one. FLAT: columns run over taps, too.
    """
    cs, cl = cs * UNIT_S, cl * UNIT_L
    if FLAT:
        tiles = tl.cdiv(KH * KW * cl, BN)
    else:
        tiles = KH * KW * tl.cdiv(cl, BN)
    tile_s = tl.program_id(0) // tiles
    tile = tl.program_id(0) - tile_s * tiles
    c = tile_s * BM + tl.arange(0, BM)
    if FLAT:
        j = tile * BN + tl.arange(0, BN)
        tap = j // cl
        d = j - tap * cl
        columns = tap < KH * KW
    else:
        tap = tile // tl.cdiv(cl, BN)
        d = (tile - tap * tl.cdiv(cl, BN)) * BN + tl.arange(0, BN)
        j = tap * cl + d
        columns = d < cl
    ky = tap // KW - PY
    kx = tap % KW - PX
    if FLAT:
        ky, kx = ky[None, :], kx[None, :]
    va, vb, vm = gemm.vector(s_a, c, c < cs), gemm.vector(s_b, c, c < cs), gemm.vector(s_mean, c, c < cs)
    wa, wb, wm = gemm.vector(l_a, d, columns), gemm.vector(l_b, d, columns), gemm.vector(l_mean, d, columns)
    total = tl.zeros([BM, BN], tl.float32)
    pixels = images * hs * ws
    for step in range(per):
        k = (tl.program_id(1) * per + step) * BK
        pixel = (k.to(tl.int64) if WIDE else k) + tl.arange(0, BK)
        image, y, x = gemm.pixels(pixel, hs, ws)
        row, column = (y * SY)[:, None] + ky, (x * SX)[:, None] + kx
        real = (pixel < pixels)[:, None]
        inside_s = real & (c < cs)[None, :]
        inside_l = real & columns[None, :] & (row >= 0) & (row < hl) & (column >= 0) & (column < wl)
        at_s = pixel[:, None] * cs + c[None, :]
        at_l = ((image[:, None] * hl + row) * wl + column) * cl + d[None, :]
        left = gemm.operand(s_x, s_y, s_a, s_b, s_mean, at_s, va, vb, vm, inside_s, s_slope, S_ACT)
        right = gemm.operand(l_x, l_y, l_a, l_b, l_mean, at_l, wa, wb, wm, inside_l, l_slope, L_ACT)
        total = tl.dot(tl.trans(left), right, total, input_precision=PRECISION)
    at = (tl.program_id(1).to(tl.int64) * cs + c)[:, None] * (KH * KW * cl) + j[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=(c < cs)[:, None] & columns[None, :])


# --- sums over tiles --------------------------------------------------------------------------------------------------


@triton.jit
def bias_kernel(
    dy, y, p, q, mean, slope, partials, rows, cn, OUT: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """partials[tile, cn] = Σ dz over ROWS pixels."""
    cn = cn * UNIT
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    va, vb, vm = gemm.vector(p, n, n < cn), gemm.vector(q, n, n < cn), gemm.vector(mean, n, n < cn)
    total = tl.zeros([BM, BN], tl.float32)
    for first in range(0, ROWS, BM):
        m = tl.program_id(0).to(tl.int64) * ROWS + first + tl.arange(0, BM)
        inside = (m < rows)[:, None] & (n < cn)[None, :]
        at = m[:, None] * cn + n[None, :]
        total += gemm.operand(dy, y, p, q, mean, at, va, vb, vm, inside, slope, OUT).to(tl.float32)
    tl.store(partials + tl.program_id(0).to(tl.int64) * cn + n, tl.sum(total, axis=0), mask=n < cn)


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


@triton.jit
def finalise_kernel(partials, mean, var, tiles, cn, BT: tl.constexpr, BC: tl.constexpr):
    """Mean and biased variance of each channel from the tiles' (count, mean, M2), relative to the first tile's mean."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    origin = tl.load(partials + cn + c, mask=c < cn, other=0.0)
    number = tl.zeros([BT, BC], tl.float32)
    moved = tl.zeros([BT, BC], tl.float32)
    for first in range(0, tiles, BT):
        t = first + tl.arange(0, BT)
        at = t.to(tl.int64)[:, None] * (3 * cn) + c[None, :]
        inside = (t < tiles)[:, None] & (c < cn)[None, :]
        n = tl.load(partials + at, mask=inside, other=0.0)
        number += n
        moved += n * (tl.load(partials + at + cn, mask=inside, other=0.0) - origin[None, :])
    total = tl.maximum(tl.sum(number, axis=0), 1.0)
    shift = tl.sum(moved, axis=0) / total
    squares = tl.zeros([BT, BC], tl.float32)
    for first in range(0, tiles, BT):
        t = first + tl.arange(0, BT)
        at = t.to(tl.int64)[:, None] * (3 * cn) + c[None, :]
        inside = (t < tiles)[:, None] & (c < cn)[None, :]
        n = tl.load(partials + at, mask=inside, other=0.0)
        off = (tl.load(partials + at + cn, mask=inside, other=0.0) - origin[None, :]) - shift[None, :]
        squares += tl.load(partials + at + 2 * cn, mask=inside, other=0.0) + n * off * off
    tl.store(mean + c, origin + shift, mask=c < cn)
    tl.store(var + c, tl.sum(squares, axis=0) / total, mask=c < cn)


# --- configurations ---------------------------------------------------------------------------------------------------

NARROW = 16  # fewer channels than this share a step of the loop with their neighbouring taps
MULTIPROCESSORS = 132  # fewer tiles leave some idle
BEST: dict = {}  # problem → the configuration measured to be best on this GPU
globals().update(tuned.constants("conv_bn_act"))


def _worth(kind, m, sizes, itemsize, exact, found):
    """The configuration that is known to be best, or else those found to be worth measuring.

    A problem is a kind of kernel, its rows m up to a factor of 2, its other sizes and how it multiplies.
    """
    multiplies = "ieee" if exact else {2: "half", 4: "tf32"}[itemsize]
    problem = f"{kind} {'x'.join(map(str, (power_of_2(m), *sizes)))} {multiplies}"
    best = BEST.get(problem)
    return found if best is None else [tuple(best)]


def configurations(m, n, k, itemsize, exact=False):
    """(BM, BN, BK, warps, stages) worth measuring, best guess first.

    m × n × k: of the GEMM, k the channels of one tap; itemsize: bytes of a number; exact: fp32 without tf32.
    """
    bn = max(16, min(64 if exact else 128, power_of_2(n)))
    bk = 16 if exact or k < NARROW else min(128 // itemsize, power_of_2(k))
    tiles = [(128, bn), (64, bn), (64, min(bn, 64)), (32, min(bn, 64)), (16, min(bn, 64))]
    tiles = list(dict.fromkeys(tiles))[exact:]  # sums in fp32 alone take more registers
    found = [(bm, bn, bk, 8 if bm * bn >= 8192 else 4, 3 if bm * bn >= 8192 else 4) for bm, bn in tiles]
    enough = [i for i, (bm, bn, *_) in enumerate(found) if cdiv(m, bm) * cdiv(n, bn) >= MULTIPROCESSORS]
    best = enough[0] if enough else len(found) - 1
    return found[best : best + 3] + found[max(best - 1, 0) : best]


def _strides(source, w, geometry, phases):
    """The layer's strides. By phases from a single pixel any stride gives the same; the kernel's wastes no tap."""
    return tuple(
        max(stride, kernel) if phases and size == 1 else stride
        for stride, kernel, size in zip(geometry[1], w.shape[:2], source.shape[1:3])
    )


def _rows(source, w, out, geometry, backward):
    """(phases, output pixels of each)."""
    if geometry[0] == backward:  # gathers
        return 1, out.shape[0] * out.shape[1] * out.shape[2]
    sy, sx = _strides(source, w, geometry, True)
    return sy * sx, out.shape[0] * cdiv(out.shape[1], sy) * cdiv(out.shape[2], sx)


def choices(source, w, out, geometry, backward=False, affine=False, tf32=False):
    """configurations(…) of forward from source [N, H, W, C_k] to out, or of backward_data from dy to dx.

    affine: backward_data with scale and shift, whose widest tile would spill.
    """
    phases, rows = _rows(source, w, out, geometry, backward)
    m, (n, k), item = phases * rows, (w.shape[3], w.shape[2]), out.element_size()
    exact = item == 4 and not tf32
    found = [c for c in configurations(m, n, k, item, exact) if c[0] * c[1] < 128 * 128 or not affine]
    kind = "affine data" if affine else "data" if backward else "forward"
    return _worth(kind, m, (n, k), item, exact, found)


def partial_rows(source, w, out, geometry, configuration, backward=False):
    """Rows of partial sums, one of each tile, that forward (or backward_data) leaves."""
    phases, rows = _rows(source, w, out, geometry, backward)
    return phases * cdiv(rows, configuration[0])


def weight_choices(x, dy, dw, geometry, tf32=False, multiprocessors=MULTIPROCESSORS):
    """Worth measuring for backward_weight, best guess first: (BM, BN, BK, warps, stages, splits)."""
    small, _ = _sides(x, dy, geometry)
    cs, kh, kw, cl = dw.shape
    pixels = small.numel() // cs
    exact = x.element_size() == 4 and not tf32
    bk, widest = (16, 64) if exact else (128 // x.element_size(), 128)
    bm, bn = (max(16, min(widest, power_of_2(c))) for c in (cs, cl))
    if cl < NARROW:
        bn, bk = max(16, min(64, power_of_2(kh * kw * cl))), min(bk, 32)
    found = []
    for tm, tn in dict.fromkeys(((bm, bn), (bm, min(bn, 64)), (min(bm, 64), min(bn, 64)))):
        tiles = cdiv(cs, tm) * _columns(kh, kw, cl, tn)
        splits = max(1, min(cdiv(2 * multiprocessors, tiles), pixels // (4 * bk)))
        found.append((tm, tn, bk, 8 if tm * tn >= 8192 else 4, 3, splits))
    return _worth("weight", pixels, (cs, kh * kw, cl), x.element_size(), exact, found)


def _sides(x, dz, geometry):
    """(small, large): the side whose pixels are summed over, and the one that the taps read around them."""
    return (x, dz) if geometry[0] else (dz, x)


def _columns(kh, kw, cl, bn):
    """Tiles along dw's taps and last channels."""
    return cdiv(kh * kw * cl, bn) if cl < NARROW else kh * kw * cdiv(cl, bn)


# --- launchers --------------------------------------------------------------------------------------------------------


def _unit(*sizes):
    return gcd(16, *sizes)


def _precision(x, tf32):
    return "tf32" if tf32 or x.element_size() == 2 else "ieee"


def _constants(source, w, out, geometry, tf32, configuration, backward):
    """Grid, w's strides, sizes and constants of a GEMM from source [N, H, W, C_k] to out [N, H', W', C_n]."""
    kh, kw, ck, cn = w.shape
    bm, bn, bk, warps, stages = configuration
    phases = geometry[0] != backward
    (sy, sx), (py, px) = _strides(source, w, geometry, phases), geometry[2]
    k_last = w.stride(2) == 1 or ck == 1
    steps = w.stride(0), w.stride(1), w.stride(3 if k_last else 2)
    units = {"UNIT_K": _unit(ck), "UNIT_N": _unit(cn), "UNIT_W": _unit(*steps)}
    wide = max(source.numel(), out.numel()) >= 2**31 - 128 * cn
    numbers = (out.shape[0], *source.shape[1:3], *out.shape[1:3], ck // units["UNIT_K"], cn // units["UNIT_N"])
    constants = dict(
        KH=kh, KW=kw, SY=sy, SX=sx, PY=py, PX=px, PHASES=phases, PRECISION=_precision(out, tf32), **units,
        K_LAST=k_last, FLAT=ck < NARROW, EVEN=ck % bk == 0 and ck >= NARROW, WIDE=wide, BM=bm, BN=bn, BK=bk,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    grid = (partial_rows(source, w, out, geometry, configuration, backward) * cdiv(cn, bn),)
    return grid, [step // units["UNIT_W"] for step in steps], numbers, constants


def forward(
    x, w, y, geometry, configuration, scale=None, shift=None, in_activation=None, in_slope=0.0, bias=None,
    out_activation=None, out_slope=0.0, saved=None, partials=None, tf32=False,
):  # fmt: skip
    """y [N, H', W', C_n] from x [N, H, W, C_k] and w [kH, kW, C_k, C_n].

    saved, like y: makes the tangent, conv·out_act'(saved). partials fp32 [partial_rows(…), 3, C_n]: for statistics.
    """
    grid, steps, numbers, constants = _constants(x, w, y, geometry, tf32, configuration, False)
    launch(forward_kernel, grid,
        x, scale, shift, in_slope, w, *steps, bias, saved, y, partials, out_slope, *numbers, IN=in_activation,
        OUT=out_activation, **constants,
    )  # fmt: skip


def statistics(partials, mean, var):
    """mean and biased var, fp32 [C], from the partials of forward."""
    tiles, _, channels = partials.shape
    bt = min(256, power_of_2(tiles))
    launch(finalise_kernel, (cdiv(channels, 8),), partials, mean, var, tiles, channels, BT=bt, BC=8, num_warps=4)


def backward_data(
    dy, w, dx, geometry, configuration, y=None, p=None, q=None, mean=None, out_activation=None, out_slope=0.0, x=None,
    scale=None, shift=None, in_activation=None, in_slope=0.0, partials=None, tf32=False,
):  # fmt: skip
    """dx [N, H, W, C_n] from dy [N, H', W', C_k] and w [kH, kW, C_k, C_n], C_k being the layer's output channels.

    dz = dy, with y dy·out_act'(y), with p, q and mean dy + p + q·(y − mean). With scale and shift: dx = dt·scale, and
    partials fp32 [partial_rows(…, backward=True), 2, C_n], whose sum over tiles (total) is dscale, dshift.
    """
    grid, steps, numbers, constants = _constants(dy, w, dx, geometry, tf32, configuration, True)
    launch(backward_data_kernel, grid,
        dy, y, p, q, mean, out_slope, w, *steps, x, scale, shift, in_slope, dx, partials, *numbers, IN=in_activation,
        OUT=out_activation, **constants,
    )  # fmt: skip


def total(parts, out):
    """out = parts [T, …] summed over T in a fixed order."""
    count, size = parts.shape[0], out.numel()
    bt = min(power_of_2(count), 256, max(1, 262144 // power_of_2(size)))
    bj = max(4, 1024 // bt)
    launch(sum_kernel, (cdiv(size, bj),), parts, out, count, size, BT=bt, BJ=bj, num_warps=4)


def backward_weight(
    x, dy, dw, geometry, configuration, workspace=None, scale=None, shift=None, in_activation=None, in_slope=0.0,
    y=None, p=None, q=None, mean=None, out_activation=None, out_slope=0.0, tf32=False,
):  # fmt: skip
    """dw [C_s, kH, kW, C_l], contiguous, from x [N, H, W, C_in] and dy [N, H', W', C_out]; u and dz are made as above.

    C_s, C_l are C_out, C_in of a plain convolution and C_in, C_out of a transposed one. workspace fp32 [splits, *dw's],
    where there is more than one split.
    """
    _, (sy, sx), (py, px) = geometry
    bm, bn, bk, warps, stages, splits = configuration
    cs, kh, kw, cl = dw.shape
    small, large = _sides(x, dy, geometry)
    operands = _sides((x, None, scale, shift, None), (dy, y, p, q, mean), geometry)
    s_slope, l_slope = _sides(in_slope, out_slope, geometry)
    s_act, l_act = _sides(in_activation, out_activation, geometry)
    unit_s, unit_l = _unit(cs), _unit(cl)
    images, hs, ws, _ = small.shape
    launch(backward_weight_kernel, (cdiv(cs, bm) * _columns(kh, kw, cl, bn), splits),
        *operands[0], *operands[1], s_slope, l_slope, dw if splits == 1 else workspace, images, hs, ws,
        *large.shape[1:3], cs // unit_s, cl // unit_l, cdiv(images * hs * ws, bk * splits), KH=kh, KW=kw, SY=sy,
        SX=sx, PY=py, PX=px, S_ACT=s_act, L_ACT=l_act, PRECISION=_precision(x, tf32), UNIT_S=unit_s,
        UNIT_L=unit_l, FLAT=cl < NARROW, WIDE=max(small.numel(), large.numel()) >= 2**31, BM=bm, BN=bn, BK=bk,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    if splits > 1:
        total(workspace, dw)


def bias_gradient(dy, partials, db, y=None, p=None, q=None, mean=None, out_activation=None, out_slope=0.0):
    """db [C] = Σ dz; partials fp32 [bias_rows(dy), C]."""
    channels = dy.shape[3]
    rows, unit, bn = dy.numel() // channels, _unit(channels), min(128, power_of_2(channels))
    launch(bias_kernel, (partials.shape[0], cdiv(channels, bn)),
        dy, y, p, q, mean, out_slope, partials, rows, channels // unit, OUT=out_activation, UNIT=unit, ROWS=BIAS_ROWS,
        BM=min(BIAS_ROWS, 4096 // bn), BN=bn, num_warps=4,
    )  # fmt: skip
    total(partials, db)


BIAS_ROWS = 256


def bias_rows(dy):
    return cdiv(dy.numel() // dy.shape[3], BIAS_ROWS)
