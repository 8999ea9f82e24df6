"""norm_act in Triton: moments of instances, groups, layers or the batch, normalisation, affine, activation; backward.

A slot is a channel of a sample, [N·C] of P elements each; a set of slots shares its moments: neighbours (groups), or
each channel's over the batch. A program takes tiles of S neighbouring slots × B positions: [S, B] of planes, or [B, S]
of rows with the channels last (LAST). Moments are those of each element of the tile over the steps (Welford), merged at
the end (Chan) over slots, and over FOLD neighbours of one set; `chunks` programs a slot leave theirs in partials, which
_statistics.py merges. Where a program can read whole sets, and there are programs enough, it goes over them again: one
launch. WEIGHT and BIAS: "channel" [C], "sample" [N, C], "pixel" (like y), None. No atomics.
"""

import triton
import triton.language as tl
from ganfast.kernels import _activations as act
from ganfast.kernels import _statistics, tuned
from ganfast.kernels._launch import cdiv, launch, power_of_2

TILE = 4096  # elements
PROGRAMS = 1024  # about, of a launch over the whole tensor
STEPS = 4  # of few programs with whole sets: each waits for memory
globals().update(tuned.constants("norm_act"))
MAX_CHUNKS = 512
SHARE = 256 << 10  # bytes that one of many programs with whole sets reads
SEGMENT = 32  # bytes of a row that a program with whole sets reads


@triton.jit
def _slots(channels, inner, planes, blocks, chunks, width, LAST: tl.constexpr, S: tl.constexpr):
    """A program's chunk, its first slot, those of [S] that there are, and where each begins."""
    p = tl.program_id(0)
    chunk, block, r = p % chunks, p // chunks, tl.arange(0, S)
    wide = S if width is None else width
    if LAST:
        n, c = (block // blocks).to(tl.int64), (block % blocks) * wide
        first, there, start = n * channels + c, c + r < channels, n * channels * inner + (c + r)
    else:
        first = block.to(tl.int64) * wide
        there, start = first + r < planes, (first + r) * inner
    if width is not None:
        there = there & (r < width)
    return chunk, first, there, start


@triton.jit
def _divided(first, n, S: tl.constexpr):
    """Quotients and rests of slots first … first + S − 1 by n."""
    rest = (first % n).to(tl.int32) + tl.arange(0, S)
    return first // n + rest // n, rest % n


@triton.jit
def _set_of(first, channels, size, BATCH: tl.constexpr, S: tl.constexpr):
    """The set of each slot, and which of the set it is."""
    if BATCH:
        which, its = _divided(first, channels, S)
    else:
        its, which = _divided(first, size, S)
    return its, which


@triton.jit
def _across(x, LAST: tl.constexpr):
    """[S] as a tile's."""
    return x[None, :] if LAST else x[:, None]


@triton.jit
def _along(x, LAST: tl.constexpr):
    """[B] as a tile's."""
    return x[:, None] if LAST else x[None, :]


@triton.jit
def _tile(i, start, there, channels, inner, LAST: tl.constexpr):
    """Offsets of positions i of all slots, and which elements there are."""
    at = i.to(tl.int64) * channels if LAST else i.to(tl.int64)
    return _across(start, LAST) + _along(at, LAST), _across(there, LAST) & _along(i < inner, LAST)


@triton.jit
def _load(p, at, mask, other=0.0):
    return tl.load(p + at, mask=mask, other=other).to(tl.float32)


@triton.jit
def _sum(x, LAST: tl.constexpr):
    """Sum of a tile for each slot."""
    return tl.sum(x, axis=0 if LAST else 1)


@triton.jit
def _over(x, FOLD: tl.constexpr, S: tl.constexpr):
    """For each slot the sum over the FOLD neighbours that it is one of."""
    if FOLD == 1:
        return x
    else:
        total = tl.sum(tl.reshape(x, [S // FOLD, FOLD]), axis=1)
        return tl.reshape(tl.broadcast_to(total[:, None], [S // FOLD, FOLD]), [S])


@triton.jit
def _of_slots(p, first, channels, there, FORM: tl.constexpr, S: tl.constexpr):
    """A parameter of each slot; 1 where it is not one of slots."""
    if FORM == "channel":
        return _load(p, _divided(first, channels, S)[1], there)
    elif FORM == "sample":
        return _load(p, first + tl.arange(0, S), there)
    else:
        return tl.full([S], 1.0, tl.float32)


@triton.jit
def _affine(d, at, mask, scale, shift, weight, bias, WEIGHT: tl.constexpr, BIAS: tl.constexpr, LAST: tl.constexpr):
    """z of y − mean, and the factor of dz that makes the cotangent of y − mean."""
    scale = _across(scale, LAST)
    if WEIGHT == "pixel":
        scale = scale * _load(weight, at, mask)
    z = d * scale
    if BIAS == "pixel":
        z += _load(bias, at, mask)
    elif bias is not None:
        z += _across(shift, LAST)
    return z, scale


@triton.jit
def forward_kernel(
    y, channels, inner, planes, blocks, chunks, steps, width, size, many, sets, partials, moments, weight, bias, eps,
    slope, a, STAGE: tl.constexpr, ACT: tl.constexpr, WEIGHT: tl.constexpr, BIAS: tl.constexpr, BATCH: tl.constexpr,
    FOLD: tl.constexpr, LAST: tl.constexpr, S: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Moments: partials[chunk·many + neighbours, 0..2, set] = number of elements, mean of the differences to the set's
    first one, which goes to moments, and M2; apply: a = act(weight·(y − mean)·r + bias); whole: both, of whole sets.
    """
    chunk, first, there, start = _slots(channels, inner, planes, blocks, chunks, width, LAST, S)
    its, which = _set_of(first, channels, size, BATCH, S)
    i = chunk * (steps * B) + tl.arange(0, B)
    if STAGE == "apply":
        mean, var = _load(moments, its, there), _load(moments + sets, its, there, 1.0)
    else:
        if BATCH:  # means are relative to the first element of the set
            origin = its if LAST else its.to(tl.int64) * inner
        else:
            origin = start - (which if LAST else which.to(tl.int64) * inner)
        base = _load(y, origin, there)
        means, m2 = tl.zeros([B, S] if LAST else [S, B], tl.float32), tl.zeros([B, S] if LAST else [S, B], tl.float32)
        for step in range(steps):
            at, mask = _tile(i + step * B, start, there, channels, inner, LAST)
            d = tl.where(mask, _load(y, at, mask) - _across(base, LAST) - means, 0.0)
            share = 1.0 / (step + 1)
            means += d * share
            m2 += d * (d * (1.0 - share))  # d² may overflow: 0 · inf is NaN
        seen = tl.minimum(tl.maximum((inner - i + B - 1) // B, 0), steps).to(tl.float32)
        number, count = tl.sum(seen, axis=0), _along(seen, LAST)
        middle = _sum(count * means, LAST) / number
        d = means - _across(middle, LAST)
        m2 = _sum(m2 + count * d * d, LAST)
        if FOLD > 1:
            count = tl.where(there, number, 0.0)
            number = tl.maximum(_over(count, FOLD, S), 1.0)
            centre = _over(count * middle, FOLD, S) / number
            m2 = _over(m2 + count * (middle - centre) * (middle - centre), FOLD, S)
            middle = centre
        if STAGE == "moments":
            tl.store(moments + its, base, mask=there & (which + chunk == 0))
            p = partials + (chunk * many + which // FOLD).to(tl.int64) * (3 * sets) + its
            leads = there & (tl.arange(0, S) % FOLD == 0)
            tl.store(p, tl.zeros([S], tl.float32) + number, mask=leads)
            tl.store(p + sets, middle, mask=leads)
            tl.store(p + 2 * sets, m2, mask=leads)
        else:
            mean, var = base + middle, m2 / number
            tl.store(moments + its, mean, mask=there & (which == 0))
            tl.store(moments + sets + its, var, mask=there & (which == 0))
    if STAGE != "moments":
        scale = _of_slots(weight, first, channels, there, WEIGHT, S) / tl.sqrt(var + eps)
        shift = _of_slots(bias, first, channels, there, BIAS, S)
        for step in range(steps):
            at, mask = _tile(i + step * B, start, there, channels, inner, LAST)
            d = _load(y, at, mask) - _across(mean, LAST)
            z, _scale = _affine(d, at, mask, scale, shift, weight, bias, WEIGHT, BIAS, LAST)
            tl.store(a + at, act.activate(z, slope, ACT).to(a.dtype.element_ty), mask=mask)


@triton.jit
def backward_kernel(
    g, y, channels, inner, planes, blocks, chunks, steps, width, size, many, sets, weight, bias, moments, eps, slope,
    share, of_sets, of_weight, of_bias, sums, dy, dweight, dbias, STAGE: tl.constexpr, GIVEN: tl.constexpr,
    ACT: tl.constexpr, WEIGHT: tl.constexpr, BIAS: tl.constexpr, BATCH: tl.constexpr, FOLD: tl.constexpr,
    LAST: tl.constexpr, S: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """With dz = g·act' and u = weight·dz. Sums: of_sets[chunk·many + neighbours, 0..1, set] = Σ u, Σ u·x̂, and of slots
    of_weight[chunk, slot] = Σ dz·x̂, of_bias[chunk, slot] = Σ dz; gradient, of sums = Σ u, Σ u·x̂ of sets: dweight and
    dbias of pixels, and dy = r·(u − share·(Σ u + x̂·Σ u·x̂)), of given moments r·u; whole: both, of whole sets or given
    moments.
    """
    chunk, first, there, start = _slots(channels, inner, planes, blocks, chunks, width, LAST, S)
    its, which = _set_of(first, channels, size, BATCH, S)
    i = chunk * (steps * B) + tl.arange(0, B)
    mean, r = _load(moments, its, there), 1.0 / tl.sqrt(_load(moments + sets, its, there, 1.0) + eps)
    w = _of_slots(weight, first, channels, there, WEIGHT, S)
    scale, shift = w * r, _of_slots(bias, first, channels, there, BIAS, S)
    if STAGE != "gradient":
        zeros = tl.zeros([B, S] if LAST else [S, B], tl.float32)
        total, along, total_u, along_u = zeros, zeros, zeros, zeros  # u: with r, as `factor` is
        for step in range(steps):
            at, mask = _tile(i + step * B, start, there, channels, inner, LAST)
            d = _load(y, at, mask) - _across(mean, LAST)
            z, factor = _affine(d, at, mask, scale, shift, weight, bias, WEIGHT, BIAS, LAST)
            dz = tl.where(mask, act.sloped(_load(g, at, mask), z, slope, ACT), 0.0)
            total += dz
            along += dz * d
            if WEIGHT == "pixel":
                total_u += dz * factor
                along_u += dz * factor * d
        total, along = _sum(total, LAST), _sum(along, LAST) * r
        slot = chunk.to(tl.int64) * planes + first + tl.arange(0, S)
        if of_weight is not None:
            tl.store(of_weight + slot, along, mask=there)
        if of_bias is not None:
            tl.store(of_bias + slot, total, mask=there)
        if not GIVEN:
            if WEIGHT == "pixel":
                total, along = _sum(total_u, LAST) / r, _sum(along_u, LAST)
            else:
                total, along = total * w, along * w
            total, along = _over(total, FOLD, S), _over(along, FOLD, S)
            if STAGE == "sums":
                p = of_sets + (chunk * many + which // FOLD).to(tl.int64) * (2 * sets) + its
                leads = there & (tl.arange(0, S) % FOLD == 0)
                tl.store(p, total, mask=leads)
                tl.store(p + sets, along, mask=leads)
    elif not GIVEN:
        total, along = _load(sums, its, there), _load(sums + sets, its, there)
    if STAGE != "sums":
        if not GIVEN:
            bend, lift = _across(-share * r * r * along, LAST), _across(-share * r * total, LAST)
        for step in range(steps):
            at, mask = _tile(i + step * B, start, there, channels, inner, LAST)
            d = _load(y, at, mask) - _across(mean, LAST)
            z, factor = _affine(d, at, mask, scale, shift, weight, bias, WEIGHT, BIAS, LAST)
            dz = act.sloped(_load(g, at, mask), z, slope, ACT)
            u = dz * factor
            if not GIVEN:
                u += d * bend + lift
            tl.store(dy + at, u.to(dy.dtype.element_ty), mask=mask)
            if WEIGHT == "pixel":
                tl.store(dweight + at, (dz * d * _across(r, LAST)).to(dweight.dtype.element_ty), mask=mask)
            if BIAS == "pixel":
                tl.store(dbias + at, dz.to(dbias.dtype.element_ty), mask=mask)


# --- launchers --------------------------------------------------------------------------------------------------------


def _view(sizes, last, groups, *parameters):
    """sizes, last, groups: the batch's rows, and rows of one channel each, are those of one sample."""
    batch, channels, inner = sizes
    if groups == 0 and (last or inner == 1 or batch == 1) and all(v is None or v.dim() != 2 for v in parameters):
        return (1, channels, batch * inner), last or batch > 1, channels
    return sizes, last, groups


def _cut(sizes, last, groups, item=0):
    """The grid, chunks a slot, what every kernel over the tensor takes, and a tile's constants.

    item: bytes of an element where a program is to have whole sets, else 0.
    """
    batch, channels, inner = sizes
    size = channels // groups if groups else 1  # slots of a set, where they are neighbours
    if last:
        slots = min(power_of_2(channels), SEGMENT // item if item else 64)
    else:
        slots = min(power_of_2(batch * channels), TILE // min(power_of_2(inner), TILE))
    fold, width = size & -size, None
    if item and fold != size:  # one set
        slots = fold = power_of_2(size)
        width = size
    elif item:
        slots = max(slots, size)
    positions = min(power_of_2(inner), max(TILE // slots, 1))
    blocks = cdiv(channels if last else batch * channels, width or slots)
    programs = blocks * batch if last else blocks
    steps = cdiv(inner, positions)
    if not item:
        steps = cdiv(steps, max(min(PROGRAMS // programs, MAX_CHUNKS), 1))
    chunks = cdiv(inner, positions * steps)
    fold = min(fold, slots)
    many, sets = (size // fold, batch * groups) if groups else (batch, channels)
    cut = channels, inner, batch * channels, blocks, chunks, steps, width, size, many, sets
    warps = min(max(slots * positions // 512, 1), 8)
    tile = {"BATCH": groups == 0, "FOLD": fold, "LAST": last, "S": slots, "B": positions, "num_warps": warps}
    return (programs * chunks,), chunks, cut, tile


def _cut_of(sizes, last, groups, item):
    """Whether a program has whole sets, and _cut."""
    batch, channels, inner = sizes
    if groups:
        size = power_of_2(channels // groups)
        grid, *rest = _cut(sizes, last, groups, item)
        share, steps = batch * channels * inner * item / grid[0], rest[1][5]
        fits = size * min(inner, 1 if last else 8) <= TILE and share <= SHARE
        if fits and (steps <= STEPS or grid[0] >= PROGRAMS // 4):
            return True, grid, *rest
    return False, *_cut(sizes, last, groups)


def _form(v):
    return None if v is None else {1: "channel", 2: "sample"}.get(v.dim(), "pixel")


def forward(y, sizes, last, weight, bias, moments, groups, eps, activation, slope, a, found):
    """a, and the moments of y in `found`, unless moments are given; sizes: N, C, P, none of them 0."""
    sizes, last, groups = _view(sizes, last, groups, weight, bias)
    options = {"ACT": activation, "WEIGHT": _form(weight), "BIAS": _form(bias)}
    rest = weight, bias, eps, slope, a
    whole, grid, chunks, cut, tile = _cut_of(sizes, last, groups, y.element_size())
    if whole and moments is None:
        launch(forward_kernel, grid, y, *cut, None, found, *rest, STAGE="whole", **options, **tile)
        return
    grid, chunks, cut, tile = _cut(sizes, last, groups)
    if moments is None:
        *_, many, sets = cut
        partials = found.new_empty((chunks * many, 3, sets))
        plain = {"ACT": None, "WEIGHT": None, "BIAS": None}
        launch(forward_kernel, grid, y, *cut, partials, found, *[None] * 5, STAGE="moments", **plain, **tile)
        _statistics.finalise(partials, found, None, None, None, 0.0, 0, found, 1)
        moments = found
    launch(forward_kernel, grid, y, *cut, None, moments, *rest, STAGE="apply", **options, **tile)


def backward(da, y, sizes, last, weight, bias, moments, given, groups, eps, activation, slope, dy, dweight, dbias):
    """dy, dweight and dbias of da, the cotangent of a; those of absent parameters are None."""
    sizes, last, groups = _view(sizes, last, groups, weight, bias)
    batch, channels, inner = sizes
    whole, grid, chunks, cut, tile = _cut_of(sizes, last, groups, y.element_size())
    if given:
        grid, chunks, cut, tile = _cut(sizes, last, groups)
    *_, many, sets = cut
    added = []  # what is still to be added up: its parts, and where to

    def parts(v, form):
        """Memory for [chunks, N·C] sums of slots: the gradient's own where they are it."""
        if form in (None, "pixel"):
            return None
        if v.numel() == chunks * batch * channels:
            return v
        made = moments.new_empty((chunks * batch * channels // v.numel(), v.numel()))
        added.append((made, v))
        return made

    forms = _form(weight), _form(bias)
    slots = parts(dweight, forms[0]), parts(dbias, forms[1])
    each = 1.0 / (batch * inner if groups == 0 else channels // groups * inner)
    arguments = da, y, *cut, weight, bias, moments, eps, slope, each
    options = {"GIVEN": given, "ACT": activation, "WEIGHT": forms[0], "BIAS": forms[1], **tile}
    if whole or given:
        stage = "gradient" if given and slots == (None, None) else "whole"
        launch(backward_kernel, grid, *arguments, None, *slots, None, dy, dweight, dbias, STAGE=stage, **options)
    else:
        of_sets, sums = moments.new_empty((chunks * many, 2, sets)), moments.new_empty((2, sets))
        launch(backward_kernel, grid, *arguments, of_sets, *slots, *[None] * 4, STAGE="sums", **options)
        added.append((of_sets, sums))
    if added:
        _statistics.totals(added)
    if not (whole or given):
        launch(backward_kernel, grid, *arguments, *[None] * 3, sums, dy, dweight, dbias, STAGE="gradient", **options)
