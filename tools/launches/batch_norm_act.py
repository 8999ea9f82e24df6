"""The launches of batch_norm_act; sizes are y's shape, whether its channels are last, and whether all is wanted.

An element of a kernel over the tensor is what one read of y (and of g in the backward) brings.
"""

import torch

SIZES = [
    ((64, 64, 32, 32), True, True), ((64, 64, 32, 32), False, False), ((32, 256, 8, 8), True, True),
    ((3, 65, 7, 7), False, False),
]  # fmt: skip
AWKWARD = [
    ((2, 1), True, True),
    ((3, 65, 7, 7), True, True),
    ((3, 5, 7, 7), False, False),
    ((1, 2, 65, 65), False, True),
]
ELEMENT = {"finish_kernel|finalise_kernel": None, "forward_kernel": 1, "backward_kernel": 2}
TUNE = {"TILE": (2048, 4096, 8192), "PROGRAMS": (512, 1024, 2048)}
NARROW = {
    "STAGE=moments .*LAST=False": "one load of the channel's first element beside the tile's",
    "LAST=False (?!.*inner%16)": "a plane starts anywhere",
}


def calls(t, shape, last, everything):
    y, g = t(*shape), t(*shape)
    if y.dtype == torch.float16 and y.device.type == "meta":
        return  # the machine code of bfloat16 differs in names alone
    if last and len(shape) > 2:
        y, g = (v.contiguous(memory_format=torch.channels_last) for v in (y, g))
    channels = [t(shape[1], dtype=torch.float32) for _ in range(4)]
    weight, bias, mean, var = channels[0].abs(), channels[1], channels[2], channels[3].abs()
    moments, counter = t(2, shape[1], dtype=torch.float32).abs(), t(1, dtype=torch.int64)[0]
    if not everything:
        weight = bias = None
    for act, use_batch in (("relu", True), ("tanh", False)) if everything else (("leaky_relu", True),):
        options = 1e-5, act, 0.2
        if use_batch:
            yield "batch_norm_act", (y, weight, bias, mean, var, counter, 0.1, *options)
        else:
            yield "normalise_act", (y, weight, bias, moments, *options)
        yield "batch_norm_act_backward", (g, y, weight, bias, moments, use_batch, *options)
