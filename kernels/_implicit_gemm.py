"""Parts of convolutions as implicit GEMMs: what happens to a number on its way in or out, tiles and the sum over taps.

Two forms: *gather*, output pixel m reads input pixels m·s − p + k; *phases*, output pixel s·m + a reads input pixels
m + (a + p)//s − t through the taps k = (a + p)%s + s·t alone.
"""

import triton
import triton.language as tl
from ganfast.kernels import _activations as act

# --- what is computed on the way in and out ---------------------------------------------------------------------------


@triton.jit
def vector(p, c, inside):
    # a number for each channel of a tile, or nothing
    if p is None:
        return 0.0
    else:
        return tl.load(p + c, mask=inside, other=0.0)


@triton.jit
def operand(x, y, a, b, mean, at, va, vb, vm, inside, slope, ACT: tl.constexpr):
    """A tile [rows, channels] of a factor: x, act(a·x + b), x·act'(y) or x + a + b·(y − mean); 0 where not inside."""
    value = tl.load(x + at, mask=inside, other=0.0)
    if y is None and a is None:
        return value
    else:
        wide = value.to(tl.float32)
        if y is None:
            wide = wide * va[None, :] + vb[None, :]
            if ACT == "relu":  # two halves at a time
                wide = wide.to(value.dtype)
            wide = act.activate(wide, slope, ACT)
        else:
            saved = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
            if a is None:
                wide = act.through(wide, saved, slope, ACT)
            else:
                wide += va[None, :] + vb[None, :] * (saved - vm[None, :])
        return wide.to(value.dtype) * inside.to(value.dtype)  # halves in pairs; a select would take them apart


# --- the GEMM of forward and data gradient ----------------------------------------------------------------------------


@triton.jit
def pixels(m, height, width):
    # number of a pixel → image, row, column
    image = m // (height * width)
    rest = m - image * (height * width)
    row = rest // width
    return image, row, rest - row * width


@triton.jit
def axis(m, phase, K: tl.constexpr, S: tl.constexpr, P: tl.constexpr, PHASES: tl.constexpr):
    # of an axis: output coordinate, input coordinate of the first tap, first tap, number of taps
    if PHASES:
        first = (phase + P) % S
        return phase + S * m, m + (phase + P) // S, first, tl.maximum(K - first + S - 1, 0) // S
    else:
        return m, m * S - P, 0, K


@triton.jit
def tile(
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
    image, my, mx = pixels(m, rows_y, rows_x)
    oy, iy, ky, taps_y = axis(my, py, KH, SY, PY, PHASES)
    ox, ix, kx, taps_x = axis(mx, px, KW, SX, PX, PHASES)
    real = (image < images) & (oy < ho) & (ox < wo)
    return row, n, (image * ho + oy) * wo + ox, real, image, iy, ix, ky, kx, taps_y, taps_x


@triton.jit
def gather(
    x, y, a, b, mean, slope, w, w_y, w_x, w_c, n, real, image, iy, ix, ky, kx, taps_y, taps_x, hi, wi, ck, cn,
    ACT: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr, PHASES: tl.constexpr, K_LAST: tl.constexpr,
    FLAT: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr,
):  # fmt: skip
    """[BM, BN] sums over taps and channels. FLAT: a step's BK run over both; else a step has one tap."""
    total = tl.zeros([BM, BN], tl.float32)
    taps = taps_y * taps_x
    chunks = tl.cdiv(ck, BK)
    for step in range(tl.cdiv(taps * ck, BK) if FLAT else taps * chunks):
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
        va, vb, vm = vector(a, c, channels), vector(b, c, channels), vector(mean, c, channels)
        left = operand(x, y, a, b, mean, at, va, vb, vm, inside, slope, ACT)
        w_at += c[:, None] + n[None, :] * w_c if K_LAST else c[:, None] * w_c + n[None, :]
        right = tl.load(w + w_at, mask=weights, other=0.0)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    return total
