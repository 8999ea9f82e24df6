"""The launches of pairwise_l1; sizes are rows, others (0: the rows themselves), kernels and their dimensions."""

import torch

SIZES = [(256, 0, 100, 5), (64, 256, 100, 5), (256, 0, 50, 16), (255, 0, 7, 41)]
AWKWARD = [(1, 0, 1, 1), (33, 0, 3, 5), (5, 17, 2, 40), (0, 4, 2, 2)]
ELEMENT = {"sum_kernel|pull_kernel": "MUFU.EX2"}  # a pair: a row and another, in one kernel
TUNE = {"BLOCK_I": (32, 64, 128), "WARPS": (1, 2, 4)}


def calls(t, rows, others, nk, kd):
    if t(1).dtype == torch.float16 and t(1).device.type == "meta":
        return  # the machine code of bfloat16 differs in names alone
    sides = t(rows, nk, kd), t(others, nk, kd) if others else None
    g = t(rows, nk)
    yield "pairwise_l1", sides
    yield "pairwise_l1_backward", (g, *sides)
    yield "pairwise_l1_double_backward", (*sides, g, *sides)
