"""The launches of norm_act; sizes are y's shape, whether its channels are last, groups, the forms of weight and bias.

An element of a kernel over the tensor is what one read of y brings, and of g, and of parameters of pixels.
"""

import torch

SIZES = [
    ((1, 256, 64, 64), False, 256, None, None), ((1, 256, 64, 64), True, 256, None, None),
    ((8, 64, 128, 128), False, 64, "sample", "sample"),
    ((8, 64, 128, 128), True, 64, "channel", "channel"), ((16, 256, 32, 32), True, 32, "channel", "channel"),
    ((64, 512, 4, 4), False, 1, "channel", "channel"), ((16, 256, 32, 32), False, 0, "pixel", "pixel"),
    ((16, 256, 32, 32), True, 256, "pixel", "pixel"), ((3, 65, 7, 7), False, 5, "channel", None),
]  # fmt: skip
AWKWARD = [
    ((2, 2), False, 1, "channel", "sample"), ((3, 65, 7, 7), True, 5, "channel", "pixel"),
    ((3, 65, 7, 7), False, 5, "sample", "channel"), ((1, 2, 65, 65), False, 2, None, "channel"),
    ((3, 5, 7, 7), True, 0, "pixel", "sample"), ((2, 96, 33, 33), True, 32, "channel", "channel"),
]  # fmt: skip
ELEMENT = {
    "finalise_kernel|sums_kernel": None, "forward_kernel STAGE=apply.*WEIGHT=pixel": 3, "forward_kernel": 1,
    "backward_kernel.*WEIGHT=pixel": 4, "backward_kernel": 2,
}  # fmt: skip
TUNE = {"TILE": (2048, 4096, 8192), "PROGRAMS": (512, 1024, 2048), "STEPS": (1, 4, 16)}
NARROW = {
    "STAGE=(moments|whole)": "one load of the set's first element beside the tile's",
    "LAST=False (?!.*inner%16)": "a plane starts anywhere",
}


def calls(t, shape, last, groups, *forms):
    def laid(v):
        return v.contiguous(memory_format=torch.channels_last) if last and v.dim() == 4 else v

    def parameter(form):
        size = {"channel": shape[1:2], "sample": shape[:2], "pixel": shape}.get(form)
        return size and laid(t(*size) if form == "pixel" else t(*size, dtype=torch.float32))

    y, g = laid(t(*shape)), laid(t(*shape))
    if y.dtype == torch.float16 and y.device.type == "meta":
        return  # the machine code of bfloat16 differs in names alone
    affine = [parameter(form) for form in forms]
    moments = t(2, *((shape[0], groups) if groups else (1, shape[1])), dtype=torch.float32).abs()
    options = groups, 1e-5, "leaky_relu" if groups > 32 else "relu", 0.2
    for given in (None, moments) if last and shape[0] == 8 else (None,):
        yield "norm_act", (y, *affine, given, *options)
        yield "norm_act_backward", (g, y, *affine, moments, given is not None, *options)
