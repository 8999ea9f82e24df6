"""Parts of convolutions as implicit GEMMs: what happens to a number on its way in or out, tiles and the sum over taps.

Two forms: *gather*, output pixel m reads input pixels m·s − p + k; *phases*, output pixel s·m + a reads input pixels
m + (a + p)//s − t through the taps k = (a + p)%s + s·t alone.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from ganfast.kernels import _activations as act

# --- what is computed on the way in -----------------------------------------------------------------------------------
# Of a factor x, with moments (mean, var) [2, C], r = 1/√(var + eps), s = gain·r, d = y − mean:
#   plain       x
#   normalise   act(s·(x − mean) + offset)
#   act         x·act'(y), y = act(z)
#   statistics  x + g₀/n + g₁·2d/n                                 of the cotangents g of mean and var
#   normalised  s·(x·act'(s·d + offset) − (g₀ + r·d·g₁)/n)         of g = Σ dt, Σ dt·x̂


class Operand(NamedTuple):
    """A factor of a product: x [N, H, W, C] and what is done with it while it is read."""

    x: object
    form: str = "plain"
    y: object = None
    moments: object = None
    gain: object = None
    offset: object = None
    sums: object = None  # g
    eps: float = 0.0
    share: float = 0.0  # 1/n
    activation: str | None = None
    slope: float = 0.0

    @property
    def arguments(self):
        """What a kernel takes, in this order."""
        return (self.x, self.y, *self.affine[:3], self.sums, self.eps, self.share, self.slope)

    @property
    def affine(self):
        return self.moments, self.gain, self.offset, self.eps


@triton.jit
def vector(p, c, inside):
    # a number for each channel of a tile, or nothing
    if p is None:
        return 0.0
    else:
        return tl.load(p + c, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def affine(moments, gain, offset, eps, c, channels, inside):
    # mean, r, s and offset
    r = tl.rsqrt(tl.load(moments + channels + c, mask=inside, other=1.0) + eps)
    scale, shift = r, tl.zeros_like(r)
    if gain is not None:
        scale = r * vector(gain, c, inside)
    if offset is not None:
        shift = vector(offset, c, inside)
    return vector(moments, c, inside), r, scale, shift


@triton.jit
def vectors(moments, gain, offset, sums, eps, share, c, channels, inside, FORM: tl.constexpr):
    """What operand needs for each channel: mean, scale, offset, lift, bend."""
    if FORM == "normalise":
        mean, _r, s, b = affine(moments, gain, offset, eps, c, channels, inside)
        return 0.0, s, b - mean * s, 0.0, 0.0
    elif FORM == "statistics":
        g = sums + channels
        return vector(moments, c, inside), 0.0, 0.0, vector(sums, c, inside) * share, vector(g, c, inside) * 2.0 * share
    elif FORM == "normalised":
        mean, r, s, b = affine(moments, gain, offset, eps, c, channels, inside)
        k = -s * share
        return mean, s, b, k * vector(sums, c, inside), k * r * vector(sums + channels, c, inside)
    else:
        return 0.0, 0.0, 0.0, 0.0, 0.0


@triton.jit
def operand(x, y, at, mean, scale, offset, lift, bend, inside, slope, ACT: tl.constexpr, FORM: tl.constexpr):
    """A tile [rows, channels] of a factor, 0 where not inside."""
    value = tl.load(x + at, mask=inside, other=0.0)
    if FORM == "plain":
        return value
    else:
        wide = value.to(tl.float32)
        if FORM == "normalise":
            wide = wide * scale[None, :] + offset[None, :]
            if ACT == "relu":  # two halves at a time
                wide = wide.to(value.dtype)
            wide = act.activate(wide, slope, ACT)
        else:
            saved = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
            if FORM == "act":
                wide = act.through(wide, saved, slope, ACT)
            else:
                d = saved - mean[None, :]
                if FORM == "normalised":
                    wide = act.sloped(wide, d * scale[None, :] + offset[None, :], slope, ACT) * scale[None, :]
                wide += lift[None, :] + bend[None, :] * d
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
    x, y, moments, gain, offset, sums, eps, share, slope, w, w_y, w_x, w_c, n, real, image, iy, ix, ky, kx, taps_y,
    taps_x, hi, wi, ck, cn, ACT: tl.constexpr, FORM: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PHASES: tl.constexpr, K_LAST: tl.constexpr, FLAT: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """[BM, BN] sums over taps and channels. FLAT: a step's BK run over both; else a step has one tap."""
    total = tl.zeros([BM, BN], tl.float32)
    taps = taps_y * taps_x
    first, tap_y, tap_x = 0, 0, 0  # unless FLAT: the step's first channel and tap, counted without divisions
    for step in range(tl.cdiv(taps * ck, BK) if FLAT else taps * tl.cdiv(ck, BK)):
        if FLAT:
            k = step * BK + tl.arange(0, BK)
            tap = k // ck
            c = k - tap * ck
            channels = tap < taps
            ty = tap // taps_x
            tx = tap - ty * taps_x
        else:
            c = first + tl.arange(0, BK)
            channels = c < ck
            ty, tx = tap_y, tap_x
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
        vm, vs, vo, vl, vb = vectors(moments, gain, offset, sums, eps, share, c, ck, channels, FORM)
        left = operand(x, y, at, vm, vs, vo, vl, vb, inside, slope, ACT, FORM)
        w_at += c[:, None] + n[None, :] * w_c if K_LAST else c[:, None] * w_c + n[None, :]
        right = tl.load(w + w_at, mask=weights, other=0.0)
        total = tl.dot(left, right, total, input_precision=PRECISION)
        if not FLAT:
            tap_ends = first + BK >= ck
            first = tl.where(tap_ends, 0, first + BK)
            tap_x = tl.where(tap_ends, tap_x + 1, tap_x)
            row_ends = tap_x == taps_x
            tap_y = tl.where(row_ends, tap_y + 1, tap_y)
            tap_x = tl.where(row_ends, 0, tap_x)
    return total
