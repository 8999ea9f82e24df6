"""conv_link in Triton: convolutions as implicit GEMMs, with what comes before and after them in the same launch.

    forward           y = out_act(conv(u, w) + bias), u = in_act(scale·x + shift); or y and its statistics; or
                      the tangent y = out_act'(saved)·conv(u, w)
    backward_data     dt = ∂conv/∂u·dz · in_act', dx = dt·scale, dscale = Σ dt·x, dshift = Σ dt
    backward_weight   dw = ∂conv/∂w·dz, and bias_gradient: Σ dz;   dz = dy·act'(y)  or  dy + p + q·(y − mean)

Activations are views [N, H, W, C], contiguous (channels_last memory). w is a view [kH, kW, C_k, C_n]: C_k channels go in
and C_n come out of the GEMM, one of the last two strides is 1 (C_k: best for fp32); dw is [C_s, kH, kW, C_l], contiguous.
So a channels_last weight needs no copy: [C_out, C_in, kH, kW] of a plain convolution and [C_in, C_out, kH, kW] of a
transposed one both lie in memory as dw does. Vectors are fp32, sums are fp32 in a fixed order, no atomics.

Two forms serve all: *gather*, output pixel m reads input pixels m·s − p + k (a plain convolution, the data gradient of a
transposed one), and *phases*, output pixel s·m + a reads input pixels m + (a + p)//s − t through the taps k = (a + p)%s
+ s·t alone (a transposed convolution, the data gradient of a plain one): no product with a structural zero, all s² phases
in one launch. Launchers run on the current device and stream; geometry is (transposed, stride, padding) of the layer.
"""

from math import gcd

import triton
import triton.language as tl

# --- what is computed on the way in and out ---------------------------------------------------------------------------


@triton.jit
def _tanh(z):
    t = tl.exp(-2.0 * tl.abs(z))
    far = (1.0 - t) / (1.0 + t)
    near = z * (1.0 - z * z * (1.0 / 3.0 - z * z * (2.0 / 15.0)))  # where 1 − t cancels
    return tl.where(tl.abs(z) < 0.04, near, tl.where(z < 0.0, -far, far))


@triton.jit
def _activate(z, slope, ACT: tl.constexpr):
    if ACT == "relu":
        return tl.where(z <= 0.0, 0.0, z)
    elif ACT == "leaky_relu":
        return tl.where(z > 0.0, z, slope * z)
    elif ACT == "tanh":
        return _tanh(z)
    else:
        return z


@triton.jit
def _through(c, y, slope, ACT: tl.constexpr):
    # c·act'(z) from y = act(z)
    if ACT == "relu":
        return tl.where(y <= 0.0, 0.0, c)
    elif ACT == "leaky_relu":
        return tl.where(y > 0.0, c, slope * c)
    elif ACT == "tanh":
        return c * (1.0 - y * y)
    else:
        return c


@triton.jit
def _vector(p, c, inside):
    # a number for each channel of a tile, or nothing
    if p is None:
        return 0.0
    else:
        return tl.load(p + c, mask=inside, other=0.0)


@triton.jit
def _operand(x, y, a, b, mean, at, va, vb, vm, inside, slope, ACT: tl.constexpr):
    """A tile [rows, channels] of a factor: x, act(a·x + b), x·act'(y) or x + a + b·(y − mean); 0 where not inside."""
    value = tl.load(x + at, mask=inside, other=0.0)
    if y is None and a is None:
        return value
    else:
        wide = value.to(tl.float32)
        if y is None:
            wide = _activate(wide * va[None, :] + vb[None, :], slope, ACT)
        else:
            saved = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
            if a is None:
                wide = _through(wide, saved, slope, ACT)
            else:
                wide += va[None, :] + vb[None, :] * (saved - vm[None, :])
        return tl.where(inside, wide, 0.0).to(value.dtype)


# --- the GEMM of forward and data gradient ----------------------------------------------------------------------------


@triton.jit
def _pixels(m, height, width):
    # number of a pixel → image, row, column
    image = m // (height * width)
    rest = m - image * (height * width)
    row = rest // width
    return image, row, rest - row * width


@triton.jit
def _axis(m, phase, K: tl.constexpr, S: tl.constexpr, P: tl.constexpr, PHASES: tl.constexpr):
    # of an axis: output coordinate, input coordinate of the first tap, first tap, number of taps
    if PHASES:
        first = (phase + P) % S
        return phase + S * m, m + (phase + P) // S, first, tl.maximum(K - first + S - 1, 0) // S
    else:
        return m, m * S - P, 0, K


@triton.jit
def _tile(
    images, ho, wo, cn, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr, PY: tl.constexpr,
    PX: tl.constexpr, PHASES: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """This program's tile: its row of partial sums, columns, output rows and which exist, where the taps start."""
    tiles_n = tl.cdiv(cn, BN)
    row = tl.program_id(0) // tiles_n
    n = (tl.program_id(0) - row * tiles_n) * BN + tl.arange(0, BN)
    tile, py, px = row, 0, 0
    if PHASES:
        tile = row // (SY * SX)
        phase = row - tile * (SY * SX)
        py = phase // SX
        px = phase - py * SX
        rows_y, rows_x = tl.cdiv(ho, SY), tl.cdiv(wo, SX)
    else:
        rows_y, rows_x = ho, wo
    m = tl.arange(0, BM)
    m = tile.to(tl.int64) * BM + m if WIDE else tile * BM + m
    image, my, mx = _pixels(m, rows_y, rows_x)
    oy, iy, ky, taps_y = _axis(my, py, KH, SY, PY, PHASES)
    ox, ix, kx, taps_x = _axis(mx, px, KW, SX, PX, PHASES)
    real = (image < images) & (oy < ho) & (ox < wo)
    return row, n, (image * ho + oy) * wo + ox, real, image, iy, ix, ky, kx, taps_y, taps_x


@triton.jit
def _gather(
    x, y, a, b, mean, slope, w, w_y, w_x, w_c, n, real, image, iy, ix, ky, kx, taps_y, taps_x, hi, wi, ck, cn,
    ACT: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr, PHASES: tl.constexpr, K_LAST: tl.constexpr,
    FLAT: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr,
):  # fmt: skip
    """[BM, BN] sums over taps and channels. FLAT: a step's BK run over both; else a step has one tap."""
    total = tl.zeros([BM, BN], tl.float32)
    taps = taps_y * taps_x
    chunks = tl.cdiv(ck, BK)
    for step in range(0, tl.cdiv(taps * ck, BK) if FLAT else taps * chunks):
        if FLAT:
            k = step * BK + tl.arange(0, BK)
            tap = k // ck
            c = k - tap * ck
            channels = tap < taps
        else:
            tap = step // chunks
            c = (step - tap * chunks) * BK + tl.arange(0, BK)
            channels = c < ck
        ty = tap // taps_x
        tx = tap - ty * taps_x
        wy, wx = ty, tx
        if PHASES:
            wy, wx, ty, tx = ky + SY * ty, kx + SX * tx, -ty, -tx
        w_at = wy * w_y + wx * w_x
        if FLAT:
            ty, tx, w_at = ty[None, :], tx[None, :], w_at[:, None]
        row, column = iy[:, None] + ty, ix[:, None] + tx
        inside = real[:, None] & (row >= 0) & (row < hi) & (column >= 0) & (column < wi)
        weights = (n < cn)[None, :]
        if not EVEN:
            inside = inside & channels[None, :]
            weights = weights & channels[:, None]
        at = ((image[:, None] * hi + row) * wi + column) * ck + c[None, :]
        va, vb, vm = _vector(a, c, channels), _vector(b, c, channels), _vector(mean, c, channels)
        left = _operand(x, y, a, b, mean, at, va, vb, vm, inside, slope, ACT)
        w_at += c[:, None] + n[None, :] * w_c if K_LAST else c[:, None] * w_c + n[None, :]
        right = tl.load(w + w_at, mask=weights, other=0.0)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    return total


@triton.jit
def forward_kernel(
    x, a, b, in_slope, w, w_y, w_x, w_c, bias, saved, y, partials, out_slope, images, hi, wi, ho, wo, ck, cn,
    KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr,
    PHASES: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, PRECISION: tl.constexpr, UNIT_K: tl.constexpr,
    UNIT_N: tl.constexpr, UNIT_W: tl.constexpr, K_LAST: tl.constexpr, FLAT: tl.constexpr, EVEN: tl.constexpr,
    WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    ck, cn = ck * UNIT_K, cn * UNIT_N  # what they are divisible by, told to the compiler
    part, n, m, real, image, iy, ix, ky, kx, taps_y, taps_x = _tile(
        images, ho, wo, cn, KH, KW, SY, SX, PY, PX, PHASES, WIDE, BM, BN
    )
    total = _gather(
        x, None, a, b, None, in_slope, w, w_y * UNIT_W, w_x * UNIT_W, w_c * UNIT_W, n, real, image, iy, ix, ky, kx,
        taps_y, taps_x, hi, wi, ck, cn, IN, SY, SX, PHASES, K_LAST, FLAT, EVEN, PRECISION, BM, BN, BK,
    )  # fmt: skip
    if bias is not None:
        total += _vector(bias, n, n < cn).to(tl.float32)[None, :]
    at = m[:, None] * cn + n[None, :]
    inside = real[:, None] & (n < cn)[None, :]
    if saved is not None:
        total = _through(total, tl.load(saved + at, mask=inside, other=0.0).to(tl.float32), out_slope, OUT)
    else:
        total = _activate(total, out_slope, OUT)
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
    part, n, m, real, image, iy, ix, ky, kx, taps_y, taps_x = _tile(
        images, ho, wo, cn, KH, KW, SY, SX, PY, PX, PHASES, WIDE, BM, BN
    )
    total = _gather(
        dy, y, p, q, mean, out_slope, w, w_y * UNIT_W, w_x * UNIT_W, w_c * UNIT_W, n, real, image, iy, ix, ky, kx,
        taps_y, taps_x, hi, wi, ck, cn, OUT, SY, SX, PHASES, K_LAST, FLAT, EVEN, PRECISION, BM, BN, BK,
    )  # fmt: skip
    at = m[:, None] * cn + n[None, :]
    inside = real[:, None] & (n < cn)[None, :]
    if scale is None:
        tl.store(dx + at, total.to(dx.dtype.element_ty), mask=inside)
    else:
        before = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        times = _vector(scale, n, n < cn)[None, :]
        u = before * times + _vector(shift, n, n < cn)[None, :]  # its sign is enough for all but tanh
        dt = tl.where(inside, _through(total, _tanh(u) if IN == "tanh" else u, in_slope, IN), 0.0)
        tl.store(dx + at, (dt * times).to(dx.dtype.element_ty), mask=inside)
        if partials is not None:  # of dscale and dshift, [2, cn]
            at = part.to(tl.int64) * 2 * cn + n
            tl.store(partials + at, tl.sum(dt * before, axis=0), mask=n < cn)
            tl.store(partials + at + cn, tl.sum(dt, axis=0), mask=n < cn)


# --- weight gradient --------------------------------------------------------------------------------------------------


@triton.jit
def backward_weight_kernel(
    s, s_y, s_a, s_b, s_mean, l, l_y, l_a, l_b, l_mean, s_slope, l_slope, out, images, hs, ws, hl, wl, cs, cl, per,
    KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr,
    S_ACT: tl.constexpr, L_ACT: tl.constexpr, PRECISION: tl.constexpr, UNIT_S: tl.constexpr, UNIT_L: tl.constexpr,
    FLAT: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """out[split, C_s, kH, kW, C_l] = Σ over pixels of s (of a part of `per`) s ⊗ l at the pixel m·stride − padding + k.

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
    va, vb, vm = _vector(s_a, c, c < cs), _vector(s_b, c, c < cs), _vector(s_mean, c, c < cs)
    wa, wb, wm = _vector(l_a, d, columns), _vector(l_b, d, columns), _vector(l_mean, d, columns)
    total = tl.zeros([BM, BN], tl.float32)
    pixels = images * hs * ws
    for step in range(0, per):
        k = (tl.program_id(1) * per + step) * BK
        pixel = (k.to(tl.int64) if WIDE else k) + tl.arange(0, BK)
        image, y, x = _pixels(pixel, hs, ws)
        row, column = (y * SY)[:, None] + ky, (x * SX)[:, None] + kx
        real = (pixel < pixels)[:, None]
        inside_s = real & (c < cs)[None, :]
        inside_l = real & columns[None, :] & (row >= 0) & (row < hl) & (column >= 0) & (column < wl)
        at_s = pixel[:, None] * cs + c[None, :]
        at_l = ((image[:, None] * hl + row) * wl + column) * cl + d[None, :]
        left = _operand(s, s_y, s_a, s_b, s_mean, at_s, va, vb, vm, inside_s, s_slope, S_ACT)
        right = _operand(l, l_y, l_a, l_b, l_mean, at_l, wa, wb, wm, inside_l, l_slope, L_ACT)
        total = tl.dot(tl.trans(left), right, total, input_precision=PRECISION)
    at = (tl.program_id(1).to(tl.int64) * cs + c)[:, None] * (KH * KW * cl) + j[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=(c < cs)[:, None] & columns[None, :])


# --- sums over tiles --------------------------------------------------------------------------------------------------


@triton.jit
def bias_kernel(
    dy, y, p, q, mean, slope, partials, rows, cn, OUT: tl.constexpr, UNIT: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """partials[tile, cn] = Σ dz over a tile's pixels."""
    cn = cn * UNIT
    m = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    va, vb, vm = _vector(p, n, n < cn), _vector(q, n, n < cn), _vector(mean, n, n < cn)
    inside = (m < rows)[:, None] & (n < cn)[None, :]
    dz = _operand(dy, y, p, q, mean, m[:, None] * cn + n[None, :], va, vb, vm, inside, slope, OUT)
    tl.store(partials + tl.program_id(0).to(tl.int64) * cn + n, tl.sum(dz.to(tl.float32), axis=0), mask=n < cn)


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
    """Mean and biased variance of each channel from the tiles' (count, mean, M2); deviations from the first tile's mean."""
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


# --- launchers --------------------------------------------------------------------------------------------------------

NARROW = 16  # fewer channels than this share a step of the loop with their neighbouring taps


def configurations(m, n, k, itemsize):
    """Worth measuring, best guess first: (BM, BN, BK, warps, stages) for a GEMM of m × n × k in types of so many bytes."""
    bn = max(16, min(128, triton.next_power_of_2(n)))
    bk = 64 if itemsize == 2 else 32
    bk = max(16, min(bk, triton.next_power_of_2(k)))
    found = [(128, bn, bk, 8 if bn == 128 else 4, 3), (64, bn, bk, 4, 4)]
    if bn == 128:
        found += [(128, 64, bk, 4, 4), (64, 64, bk, 4, 4)]
    if m <= 128 * 132:  # tiles of 128 rows would leave multiprocessors idle
        found = found[1:] + found[:1]
    if m <= 64 * 32:
        found.insert(0, (16 if m <= 16 else 32, min(bn, 64), bk, 4, 4))
    return found


def _unit(*sizes):
    return gcd(16, *sizes)


def _precision(itemsize, tf32):
    return "tf32" if tf32 or itemsize == 2 else "ieee"


def _flips(geometry, backward):
    """Whether the output is made by phases."""
    return geometry[0] != backward


def partial_rows(out, geometry, configuration, backward=False):
    """Rows of partial sums that a tile each of forward (or backward_data) leaves for out [N, H, W, C]."""
    images, ho, wo, _ = out.shape
    (sy, sx), phases = geometry[1], _flips(geometry, backward)
    pixels = images * triton.cdiv(ho, sy) * triton.cdiv(wo, sx) if phases else images * ho * wo
    return triton.cdiv(pixels, configuration[0]) * (sy * sx if phases else 1)


def choices(out, w, geometry, backward=False):
    """configurations(...) of forward (or backward_data) to out [N, H, W, C] with w [kH, kW, C_k, C_n]."""
    kh, kw, ck, cn = w.shape
    (sy, sx), phases = geometry[1], _flips(geometry, backward)
    taps = triton.cdiv(kh, sy) * triton.cdiv(kw, sx) if phases else kh * kw
    rows = out.shape[0] * out.shape[1] * out.shape[2]
    return configurations(rows, cn, taps * ck if ck < NARROW else ck, out.element_size())


def _constants(source, w, out, geometry, tf32, configuration, backward):
    """The sizes and constants of a GEMM from source [N, H, W, C_k] to out [N, H', W', C_n]."""
    _, (sy, sx), (py, px) = geometry
    kh, kw, ck, cn = w.shape
    bm, bn, bk, warps, stages = configuration
    flat = ck < NARROW
    wide = max(source.numel(), out.numel(), out.numel() // cn + bm * sy * sx) >= 2**31
    units = {"UNIT_K": _unit(ck), "UNIT_N": _unit(cn)}
    numbers = (out.shape[0], *source.shape[1:3], *out.shape[1:3], ck // units["UNIT_K"], cn // units["UNIT_N"])
    constants = dict(
        KH=kh, KW=kw, SY=sy, SX=sx, PY=py, PX=px, PHASES=_flips(geometry, backward),
        PRECISION=_precision(out.element_size(), tf32), **units, K_LAST=w.stride(2) == 1, FLAT=flat,
        EVEN=not flat and ck % bk == 0, WIDE=wide, BM=bm, BN=bn, BK=bk, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    steps = (w.stride(0), w.stride(1), w.stride(3 if constants["K_LAST"] else 2))
    constants["UNIT_W"] = _unit(*steps)
    steps = tuple(step // constants["UNIT_W"] for step in steps)
    grid = (partial_rows(out, geometry, configuration, backward) * triton.cdiv(cn, bn),)
    return grid, steps, numbers, constants


def forward(
    x, w, y, geometry, configuration, scale=None, shift=None, in_activation=None, in_slope=0.0, bias=None,
    out_activation=None, out_slope=0.0, saved=None, partials=None, tf32=False,
):  # fmt: skip
    """y [N, H', W', C_n] from x [N, H, W, C_k] and w [kH, kW, C_k, C_n].

    saved, like y: makes the tangent, conv times out_act'(saved). partials fp32 [partial_rows(…), 3, C_n]: for statistics.
    """
    grid, steps, numbers, constants = _constants(x, w, y, geometry, tf32, configuration, False)
    forward_kernel[grid](
        x, scale, shift, in_slope, w, *steps, bias, saved, y, partials, out_slope, *numbers, IN=in_activation,
        OUT=out_activation, **constants,
    )  # fmt: skip


def statistics(partials, mean, var):
    """mean and biased var, fp32 [C], from the partials of forward."""
    tiles, _, channels = partials.shape
    bt = min(256, triton.next_power_of_2(tiles))
    finalise_kernel[(triton.cdiv(channels, 8),)](partials, mean, var, tiles, channels, BT=bt, BC=8, num_warps=4)


def backward_data(
    dy, w, dx, geometry, configuration, y=None, p=None, q=None, mean=None, out_activation=None, out_slope=0.0, x=None,
    scale=None, shift=None, in_activation=None, in_slope=0.0, partials=None, tf32=False,
):  # fmt: skip
    """dx [N, H, W, C_n] from dy [N, H', W', C_k] and w [kH, kW, C_k, C_n], C_k being the layer's output channels.

    dz = dy, with y dy·out_act'(y), with p, q and mean dy + p + q·(y − mean). With scale and shift: dx = dt·scale, and
    partials fp32 [partial_rows(…, backward=True), 2, C_n], whose sum over tiles (total) is dscale, dshift.
    """
    grid, steps, numbers, constants = _constants(dy, w, dx, geometry, tf32, configuration, True)
    backward_data_kernel[grid](
        dy, y, p, q, mean, out_slope, w, *steps, x, scale, shift, in_slope, dx, partials, *numbers, IN=in_activation,
        OUT=out_activation, **constants,
    )  # fmt: skip


def total(parts, out):
    """out = parts [T, …] summed over T in a fixed order."""
    count, size = parts.shape[0], out.numel()
    bt = min(triton.next_power_of_2(count), 256, max(1, 262144 // triton.next_power_of_2(size)))
    bj = max(4, 1024 // bt)
    sum_kernel[(triton.cdiv(size, bj),)](parts, out, count, size, BT=bt, BJ=bj, num_warps=4)


def _sides(x, dz, geometry):
    """(small, large): the side whose pixels are summed over, and the one that the taps read around them."""
    return (x, dz) if geometry[0] else (dz, x)


def weight_choices(x, dy, dw, geometry, multiprocessors=132):
    """Worth measuring for backward_weight, best guess first: (BM, BN, BK, warps, stages, splits)."""
    small, _ = _sides(x, dy, geometry)
    cs, kh, kw, cl = dw.shape
    pixels = small.numel() // cs
    bm = max(16, min(128, triton.next_power_of_2(cs)))
    bn = max(16, min(128 if bm < 128 else 64, triton.next_power_of_2(kh * kw * cl if cl < NARROW else cl)))
    bk = 64 if x.element_size() == 2 else 32
    tiles = triton.cdiv(cs, bm) * (triton.cdiv(kh * kw * cl, bn) if cl < NARROW else kh * kw * triton.cdiv(cl, bn))
    found = []
    for waves in (2, 1, 4):
        splits = max(1, min(waves * multiprocessors // tiles, pixels // (4 * bk)))
        found.append((bm, bn, bk, 4, 3, splits))
    return list(dict.fromkeys(found))


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
    unit_s, unit_l, flat = _unit(cs), _unit(cl), cl < NARROW
    images, hs, ws, _ = small.shape
    columns = triton.cdiv(kh * kw * cl, bn) if flat else kh * kw * triton.cdiv(cl, bn)
    backward_weight_kernel[triton.cdiv(cs, bm) * columns, splits](
        *operands[0], *operands[1], s_slope, l_slope, dw if splits == 1 else workspace, images, hs, ws,
        *large.shape[1:3], cs // unit_s, cl // unit_l, triton.cdiv(images * hs * ws, bk * splits), KH=kh, KW=kw, SY=sy,
        SX=sx, PY=py, PX=px, S_ACT=s_act, L_ACT=l_act, PRECISION=_precision(x.element_size(), tf32), UNIT_S=unit_s,
        UNIT_L=unit_l, FLAT=flat, WIDE=max(small.numel(), large.numel()) >= 2**31, BM=bm, BN=bn, BK=bk,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    if splits > 1:
        total(workspace, dw)


def bias_gradient(dy, partials, db, y=None, p=None, q=None, mean=None, out_activation=None, out_slope=0.0):
    """db [C] = Σ dz; partials fp32 [bias_rows(dy), C]."""
    channels = dy.shape[3]
    rows, unit, bn = dy.numel() // channels, _unit(channels), min(128, triton.next_power_of_2(channels))
    bias_kernel[partials.shape[0], triton.cdiv(channels, bn)](
        dy, y, p, q, mean, out_slope, partials, rows, channels // unit, OUT=out_activation, UNIT=unit, BM=BIAS_ROWS,
        BN=bn, num_warps=4,
    )  # fmt: skip
    total(partials, db)


BIAS_ROWS = 64


def bias_rows(dy):
    return triton.cdiv(dy.numel() // dy.shape[3], BIAS_ROWS)
