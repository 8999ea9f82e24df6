"""The launches of sigmoid_bce; sizes are the numbers of real and of fake logits."""

import torch

SIZES = [(65_537, 70_001)]  # nothing is chosen by size, and sizes divisible by 16 change nothing: tiles are not masked
AWKWARD = [(1, 3), (0, 5), (4097, 2047)]
ELEMENT = {"loss_kernel": 1, "backward_kernel": 1, "double_kernel": 2, "finish_kernel": None}
TUNE = {"BLOCK": (512, 1024, 2048), "STEPS": (1, 2, 4, 8), "WARPS": (4, 8)}


def calls(t, real, fake):
    logits, targets = (t(real), t(fake)), (0.9, 0.1)
    g = t(dtype=torch.float32)
    yield "sigmoid_bce", (*logits, *targets)
    yield "sigmoid_bce_backward", (g, *logits, *targets)
    yield "sigmoid_bce_double_backward", (t(real), t(fake), g, *logits, *targets)
