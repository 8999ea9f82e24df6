"""The launches of conv_link; sizes are a kind of layer, batch, input channels and pixels a side, output channels,
kernel, stride, padding, and the dtypes that are compiled: machine code for the two half types differs in names alone.

Kinds: generator (transposed, a prologue, statistics), images (transposed, a prologue, tanh), critic (leaky_relu), head
(a plain convolution), exact (as generator, without tf32).
"""

import torch

HALVES = (torch.float16, torch.bfloat16)
SIZES = [
    ("generator", 128, 128, 16, 256, 4, 2, 1, (torch.float32, torch.bfloat16)),
    ("critic", 128, 128, 32, 256, 4, 2, 1, (torch.float16,)),
    ("exact", 128, 128, 16, 256, 4, 2, 1, (torch.float32,)),
    ("critic", 128, 3, 64, 64, 4, 2, 1, HALVES[1:]),
    ("images", 128, 64, 32, 3, 4, 2, 1, HALVES[1:]),
    ("head", 128, 512, 4, 1, 4, 1, 0, HALVES[1:]),
]
ALL = (torch.float32, *HALVES)
AWKWARD = [
    ("generator", 1, 17, 3, 18, 3, 2, 1, ALL), ("generator", 3, 20, 1, 33, 4, 1, 0, ALL),
    ("critic", 2, 3, 7, 5, 4, 2, 1, ALL), ("images", 2, 16, 5, 3, 5, 3, 2, ALL), ("head", 2, 70, 4, 1, 4, 1, 0, ALL),
    ("exact", 1, 17, 3, 18, 3, 2, 1, ALL),
]  # fmt: skip
ELEMENT = {
    "ieee": "FFMA",
    "forward_kernel|backward_data_kernel|backward_weight_kernel": ("HMMA", "HGMMA", "UTCHMMA"),
    "bias_kernel": 2,
    "sum_kernel|finalise_kernel": None,  # what the tiles left: fp32, little
}
NARROW = {
    "FLAT=True|UNIT=1 |UNIT_S=1 ": "3 channels, or 1: a pixel is 6 bytes long, or 2",
    "UNIT_N=1 .*K_LAST=False": "rows of 3 weights",
}


def calls(t, kind, n, c_in, side, c_out, kernel, stride, padding, dtypes):
    if t(1).dtype not in dtypes:
        return
    transposed, affine = kind in ("generator", "images", "exact"), kind in ("generator", "images", "exact")
    out_activation = {"images": "tanh", "critic": "leaky_relu"}.get(kind)
    statistics = kind in ("generator", "exact")
    out = (side - 1) * stride + kernel if transposed else (side - kernel + 2 * padding) // stride + 1
    out -= 2 * padding * transposed

    def last(n, c, h, w):
        return t(n, h, w, c).permute(0, 3, 1, 2)

    x, y = last(n, c_in, side, side), last(n, c_out, out, out)
    weight = last(*((c_in, c_out) if transposed else (c_out, c_in)), kernel, kernel)
    scale, shift, mean, seed = (t(c, dtype=torch.float32) for c in (c_in, c_in, c_out, c_out))
    before = (scale, shift) if affine else (None, None)
    rest = transposed, [stride] * 2, [padding] * 2, [0, 0], "relu" if affine else None, 0.0, out_activation, 0.2
    seeds = (y, seed, seed) if statistics else (y, None, None)
    saved = (y, mean) if statistics else (None if out_activation is None else y, None)
    allowed, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, kind != "exact"
    try:
        yield "conv_link", (x, *before, weight, t(c_out), *rest, statistics)
        if kind == "critic" and c_in >= 16:
            yield "conv_link_tangent", (x, weight, y, *rest[:4], out_activation, 0.2)
        yield "conv_link_backward", (*seeds, x, *before, weight, *saved, *rest, [True, affine, True, True])
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
