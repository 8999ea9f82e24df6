"""conv_bn_act in Triton: convolutions as implicit GEMMs, with what comes before and after them in the same launch.

    forward           y = out_act(conv(u, w) + bias), or y and each tile's count, mean and M2 of it; or the tangent
                      y = out_act'(saved)·conv(u, w)
    backward_data     dt = ∂conv/∂u·dz · in_act', dx = dt·s, and each tile's Σ dt and Σ dt·(x − mean)
    backward_weight   dw = ∂conv/∂w·dz, and bias_gradient: Σ dz

u and dz are made of what lies in memory while it is read (gemm.Operand). Activations are views [N, H, W, C], contiguous
(channels_last memory). w is a view [kH, kW, C_k, C_n]: C_k channels go into the GEMM and C_n come out, one of the last
two strides is 1 (C_k: best for fp32); dw is [C_s, kH, kW, C_l], contiguous. So a channels_last weight needs no copy:
[C_out, C_in, kH, kW] of a plain convolution and [C_in, C_out, kH, kW] of a transposed one both lie as dw does. Sums are
fp32 in a fixed order, no atomics; what the tiles leave is brought together in _statistics.py.

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
from ganfast.kernels._statistics import total

# --- forward and data gradient ----------------------------------------------------------------------------------------


@triton.jit
def forward_kernel(
    x, moments, gain, offset, eps, slope, w, w_y, w_x, w_c, bias, saved, out_slope, y, partials, images, hi, wi, ho,
    wo, ck, cn, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr, PY: tl.constexpr,
    PX: tl.constexpr, PHASES: tl.constexpr, ACT: tl.constexpr, FORM: tl.constexpr, OUT: tl.constexpr,
    PRECISION: tl.constexpr, UNIT_K: tl.constexpr, UNIT_N: tl.constexpr, UNIT_W: tl.constexpr, K_LAST: tl.constexpr,
    FLAT: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    ck, cn = ck * UNIT_K, cn * UNIT_N  # what they are divisible by, told to the compiler
    part, n, m, real, image, iy, ix, ky, kx, taps_y, taps_x = gemm.tile(
        images, ho, wo, cn, KH, KW, SY, SX, PY, PX, PHASES, WIDE, BM, BN
    )
    total = gemm.gather(
        x, None, moments, gain, offset, None, eps, 0.0, slope, w, w_y * UNIT_W, w_x * UNIT_W, w_c * UNIT_W, n, real,
        image, iy, ix, ky, kx, taps_y, taps_x, hi, wi, ck, cn, ACT, FORM, SY, SX, PHASES, K_LAST, FLAT, EVEN,
        PRECISION, BM, BN, BK,
    )  # fmt: skip
    if bias is not None:
        total += gemm.vector(bias, n, n < cn)[None, :]
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
    dy, y, moments, gain, offset, sums, eps, share, slope, w, w_y, w_x, w_c, x, in_moments, in_gain, in_offset, in_eps,
    in_slope, dx, partials, images, hi, wi, ho, wo, ck, cn, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr,
    SX: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr, PHASES: tl.constexpr, ACT: tl.constexpr, FORM: tl.constexpr,
    IN: tl.constexpr, PRECISION: tl.constexpr, UNIT_K: tl.constexpr, UNIT_N: tl.constexpr, UNIT_W: tl.constexpr,
    K_LAST: tl.constexpr, FLAT: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    # hi, wi: of dy, which goes in; ho, wo: of dx, which comes out
    ck, cn = ck * UNIT_K, cn * UNIT_N
    part, n, m, real, image, iy, ix, ky, kx, taps_y, taps_x = gemm.tile(
        images, ho, wo, cn, KH, KW, SY, SX, PY, PX, PHASES, WIDE, BM, BN
    )
    total = gemm.gather(
        dy, y, moments, gain, offset, sums, eps, share, slope, w, w_y * UNIT_W, w_x * UNIT_W, w_c * UNIT_W, n, real,
        image, iy, ix, ky, kx, taps_y, taps_x, hi, wi, ck, cn, ACT, FORM, SY, SX, PHASES, K_LAST, FLAT, EVEN,
        PRECISION, BM, BN, BK,
    )  # fmt: skip
    at = m[:, None] * cn + n[None, :]
    inside = real[:, None] & (n < cn)[None, :]
    if in_moments is None:
        tl.store(dx + at, total.to(dx.dtype.element_ty), mask=inside)
    else:
        mean, _r, scale, shift = gemm.affine(in_moments, in_gain, in_offset, in_eps, n, cn, n < cn)
        d = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - mean[None, :]
        dt = tl.where(inside, act.sloped(total, d * scale[None, :] + shift, in_slope, IN), 0.0)
        tl.store(dx + at, (dt * scale[None, :]).to(dx.dtype.element_ty), mask=inside)
        if partials is not None:  # Σ dt and Σ dt·(x − mean), [2, cn]
            at = part.to(tl.int64) * 2 * cn + n
            tl.store(partials + at, tl.sum(dt, axis=0), mask=n < cn)
            tl.store(partials + at + cn, tl.sum(dt * d, axis=0), mask=n < cn)


# --- weight gradient --------------------------------------------------------------------------------------------------


@triton.jit
def backward_weight_kernel(
    s_x, s_y, s_moments, s_gain, s_offset, s_sums, s_eps, s_share, s_slope, l_x, l_y, l_moments, l_gain, l_offset,
    l_sums, l_eps, l_share, l_slope, out, images, hs, ws, hl, wl, cs, cl, per, KH: tl.constexpr, KW: tl.constexpr,
    SY: tl.constexpr, SX: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr, S_ACT: tl.constexpr, S_FORM: tl.constexpr,
    L_ACT: tl.constexpr, L_FORM: tl.constexpr, PRECISION: tl.constexpr, UNIT_S: tl.constexpr, UNIT_L: tl.constexpr,
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
    sm, ss, so, sl, sb = gemm.vectors(s_moments, s_gain, s_offset, s_sums, s_eps, s_share, c, cs, c < cs, S_FORM)
    lm, ls, lo, ll, lb = gemm.vectors(l_moments, l_gain, l_offset, l_sums, l_eps, l_share, d, cl, columns, L_FORM)
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
        left = gemm.operand(s_x, s_y, at_s, sm, ss, so, sl, sb, inside_s, s_slope, S_ACT, S_FORM)
        right = gemm.operand(l_x, l_y, at_l, lm, ls, lo, ll, lb, inside_l, l_slope, L_ACT, L_FORM)
        total = tl.dot(tl.trans(left), right, total, input_precision=PRECISION)
    at = (tl.program_id(1).to(tl.int64) * cs + c)[:, None] * (KH * KW * cl) + j[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=(c < cs)[:, None] & columns[None, :])


# --- bias gradient ----------------------------------------------------------------------------------------------------


@triton.jit
def bias_kernel(
    dy, y, moments, gain, offset, sums, eps, share, slope, partials, rows, cn, ACT: tl.constexpr, FORM: tl.constexpr,
    UNIT: tl.constexpr, ROWS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """partials[tile, cn] = Σ dz over ROWS pixels."""
    cn = cn * UNIT
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    vm, vs, vo, vl, vb = gemm.vectors(moments, gain, offset, sums, eps, share, n, cn, n < cn, FORM)
    total = tl.zeros([BM, BN], tl.float32)
    for first in range(0, ROWS, BM):
        m = tl.program_id(0).to(tl.int64) * ROWS + first + tl.arange(0, BM)
        inside = (m < rows)[:, None] & (n < cn)[None, :]
        at = m[:, None] * cn + n[None, :]
        total += gemm.operand(dy, y, at, vm, vs, vo, vl, vb, inside, slope, ACT, FORM).to(tl.float32)
    tl.store(partials + tl.program_id(0).to(tl.int64) * cn + n, tl.sum(total, axis=0), mask=n < cn)


# --- configurations ---------------------------------------------------------------------------------------------------

NARROW = 16  # fewer channels than this share a step of the loop with their neighbouring taps
MULTIPROCESSORS = 132  # fewer tiles leave some idle
BIAS_ROWS = 256  # pixels of a program of bias_kernel
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
    operands, whole = x.numel() * x.element_size() + dy.numel() * dy.element_size(), dw.numel() * 4
    found = []
    for tm, tn in dict.fromkeys(((bm, bn), (bm, min(bn, 64)), (min(bm, 64), min(bn, 64)))):
        tiles = cdiv(cs, tm) * _columns(kh, kw, cl, tn)
        for waves in (1, 2):
            splits = max(1, min(waves * multiprocessors // tiles, pixels // (4 * bk)))
            found.append((tm, tn, bk, 8 if tm * tn >= 8192 else 4, 3, splits))
    # first the largest tiles whose parts, written and read once, are few beside the operands
    found = list(dict.fromkeys(found))
    lean = [c for c in found if c[-1] == 1 or 2 * c[-1] * whole <= operands // 20]
    found = [*lean, *(c for c in found if c not in lean)]
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
    u, w, y, geometry, configuration, bias=None, activation=None, slope=0.0, saved=None, partials=None, tf32=False
):
    """y [N, H', W', C_n] from the operand u [N, H, W, C_k] and w [kH, kW, C_k, C_n].

    saved, like y: makes the tangent, conv·act'(saved). partials fp32 [partial_rows(…), 3, C_n]: for moments.
    """
    grid, steps, numbers, constants = _constants(u.x, w, y, geometry, tf32, configuration, False)
    launch(forward_kernel, grid,
        u.x, *u.affine, u.slope, w, *steps, bias, saved, slope, y, partials, *numbers, ACT=u.activation, FORM=u.form,
        OUT=activation, **constants,
    )  # fmt: skip


def backward_data(dz, w, dx, geometry, configuration, u, partials=None, tf32=False):
    """dx [N, H, W, C_n] from the operand dz [N, H', W', C_k] and w [kH, kW, C_k, C_n], C_k the layer's output channels.

    u: the layer's input as forward takes it. partials fp32 [partial_rows(…, backward=True), 2, C_n]: for finish.
    """
    grid, steps, numbers, constants = _constants(dz.x, w, dx, geometry, tf32, configuration, True)
    launch(backward_data_kernel, grid,
        *dz.arguments, w, *steps, u.x if u.form == "normalise" else None, *u.affine, u.slope, dx, partials, *numbers,
        ACT=dz.activation, FORM=dz.form, IN=u.activation, **constants,
    )  # fmt: skip


def backward_weight(u, dz, dw, geometry, configuration, workspace=None, tf32=False):
    """dw [C_s, kH, kW, C_l], contiguous, from the operands u [N, H, W, C_in] and dz [N, H', W', C_out].

    C_s, C_l are C_out, C_in of a plain convolution and C_in, C_out of a transposed one. workspace fp32 [splits, *dw's],
    where there is more than one split.
    """
    _, (sy, sx), (py, px) = geometry
    bm, bn, bk, warps, stages, splits = configuration
    cs, kh, kw, cl = dw.shape
    small, large = _sides(u, dz, geometry)
    unit_s, unit_l = _unit(cs), _unit(cl)
    images, hs, ws, _ = small.x.shape
    launch(backward_weight_kernel, (cdiv(cs, bm) * _columns(kh, kw, cl, bn), splits),
        *small.arguments, *large.arguments, dw if splits == 1 else workspace, images, hs, ws, *large.x.shape[1:3],
        cs // unit_s, cl // unit_l, cdiv(images * hs * ws, bk * splits), KH=kh, KW=kw, SY=sy, SX=sx, PY=py, PX=px,
        S_ACT=small.activation, S_FORM=small.form, L_ACT=large.activation, L_FORM=large.form,
        PRECISION=_precision(u.x, tf32), UNIT_S=unit_s, UNIT_L=unit_l, FLAT=cl < NARROW,
        WIDE=max(small.x.numel(), large.x.numel()) >= 2**31, BM=bm, BN=bn, BK=bk, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    if splits > 1:
        total(workspace, dw)


def bias_gradient(dz, empty):
    """Σ dz [C], fp32; empty(*shape): new memory for fp32."""
    channels = dz.x.shape[3]
    rows, unit, bn = dz.x.numel() // channels, _unit(channels), min(128, power_of_2(channels))
    partials = empty(cdiv(rows, BIAS_ROWS), channels)
    launch(bias_kernel, (partials.shape[0], cdiv(channels, bn)),
        *dz.arguments, partials, rows, channels // unit, ACT=dz.activation, FORM=dz.form, UNIT=unit, ROWS=BIAS_ROWS,
        BM=min(BIAS_ROWS, 4096 // bn), BN=bn, num_warps=4,
    )  # fmt: skip
    if len(partials) == 1:
        return partials[0]
    db = empty(channels)
    total(partials, db)
    return db
