"""The launches of conv_bn_act; sizes are a kind of layer, batch, input channels and pixels a side, output channels,
kernel, stride, padding, and the dtypes that are compiled: machine code for the two half types differs in names alone.

Kinds: generator (transposed, with batch normalisation), chain (the same in a chain: it applies what the layer before
has left, and leaves its own to the next), images (transposed, the end of a chain, tanh), critic (leaky_relu), head (a
plain convolution), exact (as chain, without tf32).
"""

import itertools

import torch

HALVES = (torch.float16, torch.bfloat16)
SIZES = [
    ("generator", 128, 128, 16, 256, 4, 2, 1, (torch.bfloat16,)),
    ("chain", 128, 128, 16, 256, 4, 2, 1, (torch.float32, torch.bfloat16)),
    ("critic", 128, 128, 32, 256, 4, 2, 1, (torch.float16,)),
    ("exact", 128, 128, 16, 256, 4, 2, 1, (torch.float32,)),
    ("critic", 128, 3, 64, 64, 4, 2, 1, HALVES[1:]),
    ("images", 128, 64, 32, 3, 4, 2, 1, HALVES[1:]),
    ("head", 128, 512, 4, 1, 4, 1, 0, HALVES[1:]),
]
# the layers of DCGAN-64 and of its critic, width 64, batch 128
LAYERS = [
    ("generator", 128, 100, 1, 512, 4, 1, 0), ("generator", 128, 512, 4, 256, 4, 2, 1),
    ("generator", 128, 256, 8, 128, 4, 2, 1), ("chain", 128, 128, 16, 64, 4, 2, 1),
    ("images", 128, 64, 32, 3, 4, 2, 1), ("critic", 128, 3, 64, 64, 4, 2, 1), ("critic", 128, 64, 32, 128, 4, 2, 1),
    ("critic", 128, 128, 16, 256, 4, 2, 1), ("critic", 128, 256, 8, 512, 4, 2, 1), ("head", 128, 512, 4, 1, 4, 1, 0),
]  # fmt: skip
ALL = (torch.float32, *HALVES)
AWKWARD = [
    ("generator", 1, 17, 3, 18, 3, 2, 1, ALL), ("chain", 3, 20, 1, 33, 4, 1, 0, ALL),
    ("critic", 2, 3, 7, 5, 4, 2, 1, ALL), ("images", 2, 16, 5, 3, 5, 3, 2, ALL), ("head", 2, 70, 4, 1, 4, 1, 0, ALL),
    ("exact", 1, 17, 3, 18, 3, 2, 1, ALL),
]  # fmt: skip
ELEMENT = {
    "forward_kernel .*STAGE=": 1,  # of batch_norm_act
    "backward_kernel .*STAGE=": 2,
    "ieee": "FFMA",
    "forward_kernel|backward_data_kernel|backward_weight_kernel": ("HMMA", "HGMMA", "UTCHMMA"),
    "bias_kernel": 2,
    "sum_kernel|finalise_kernel|finish_kernel": None,  # what the tiles left: fp32, little
}
NARROW = {
    "FLAT=True|UNIT=1 |UNIT_S=1 ": "3 channels, or 1: a pixel is 6 bytes long, or 2",
    "UNIT_N=1 .*K_LAST=False": "rows of 3 weights",
}


def calls(t, kind, n, c_in, side, c_out, kernel, stride, padding, dtypes):
    if t(1).dtype not in dtypes:
        return
    transposed, before = kind not in ("critic", "head"), kind in ("chain", "images", "exact")
    activation = {"images": "tanh", "critic": "leaky_relu", "generator": "relu"}.get(kind)
    out = (side - 1) * stride + kernel if transposed else (side - kernel + 2 * padding) // stride + 1
    out -= 2 * padding * transposed

    def last(n, c, h, w):
        return t(n, h, w, c).permute(0, 3, 1, 2)

    def vectors(c, *rows):
        return t(*rows, c, dtype=torch.float32)

    x, y = last(n, c_in, side, side), last(n, c_out, out, out)
    weight = last(*((c_in, c_out) if transposed else (c_out, c_in)), kernel, kernel)
    inputs = (x, vectors(c_in, 2).abs(), vectors(c_in), vectors(c_in)) if before else (x, None, None, None)
    geometry = transposed, [stride] * 2, [padding] * 2, [0, 0], 1e-5, "relu" if before else None, 0.0
    needed = [True, before, True, True]
    allowed, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, kind != "exact"
    try:
        if kind in ("images", "critic", "head"):
            yield "conv_act", (*inputs, weight, t(c_out), *geometry, activation, 0.2)
            if kind == "critic" and c_in >= 16:
                yield "conv_act_tangent", (x, weight, y, *geometry[:4], activation, 0.2)
            saved = None, None, None if activation is None else y, None
            rest = *geometry, 0.0, activation, 0.2, needed
            yield "conv_bn_act_backward", (y, None, None, *inputs, weight, *saved, *rest)
            return
        bn, moments, apply = (vectors(c_out), vectors(c_out)), vectors(c_out, 2).abs(), kind == "generator"
        running = *(v.abs() for v in vectors(c_out, 2)), t(1, dtype=torch.int64)[0]
        rest = *geometry, 0.1, 1e-5, activation, 0.0, apply
        yield "conv_bn_act", (*inputs, weight, None, *bn, *running, *rest)
        cotangents = (y, None, None) if apply else (None, y, vectors(c_out, 2))
        rest = *geometry, 1e-5, activation, 0.0, needed
        yield "conv_bn_act_backward", (*cotangents, *inputs, weight, *bn, y, moments, *rest)
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def problems(t):
    for layer in LAYERS:
        for name, args in calls(t, *layer, ALL):
            if name in ("conv_act", "conv_bn_act"):
                yield name, args
            if name == "conv_bn_act_backward":  # the data gradient; the weight's
                *args, (need_x, before, need_weight, _) = args
                yield name, (*args, [need_x, before, False, False])
                yield name, (*args, [False, False, need_weight, False])


def candidates(problem: str) -> list[tuple]:
    """Tiles, steps, stages (and splits) for "forward 131072x256x128 half", "weight 32768x128x16x256 tf32"."""
    kind, sizes, multiplies = problem.rsplit(" ", 2)
    m, n, *rest = map(int, sizes.split("x"))
    exact, item = multiplies == "ieee", 2 if multiplies == "half" else 4
    rows, columns, depth = (n, rest[-1], m) if kind == "weight" else (m, n, rest[-1])
    steps = (64 // item, 128 // item)
    if kind != "weight" and depth < 16:
        steps = 16, 32  # over taps and channels together
    across = rest[0] if kind == "weight" else 1  # taps, each with tiles of its own

    def count(bm, bn):
        return -(-rows // bm) * across * -(-columns // bn)

    shapes = [  # no tile more than half of which is idle, none that is too large to keep its sums
        (bm, bn) for bm, bn in itertools.product((256, 128, 64, 32, 16), (128, 64, 32, 16))
        if bm < 2 * max(rows, 16) and bn < 2 * max(columns, 16) and bm * bn <= (64 * 64 if exact else 128 * 128)
    ]  # fmt: skip
    if kind != "weight":  # enough of them for the GPU, and not too many; if there are none, the smallest
        shapes = [s for s in shapes if 66 <= count(*s) <= 132 * 16] or shapes[-2:]
    shapes = sorted(shapes, key=lambda s: (-s[0] * s[1], abs(s[0] - s[1])))[:8]  # the largest, and square before long
    found = []
    for (bm, bn), bk, stages in itertools.product(shapes, steps, (3, 4)):
        if bk < 2 * max(depth, 32):
            tile = bm, bn, bk, 8 if bm * bn >= 8192 else 4, stages
            splits = {max(1, min(waves * 132 // count(bm, bn), m // (4 * bk))) for waves in (1, 2)}
            found += [(*tile, s) for s in sorted(splits)] if kind == "weight" else [tile]
    return found
