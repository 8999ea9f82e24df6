"""The launches of gradient_penalty; sizes are the batch, a sample's elements, φ's target and whether all is wanted."""

import torch

# a program holds a sample of up to 16,384 elements; a larger one is cut
SIZES = [(64, 3072, 1.0, True), (64, 12_288, 1.0, True), (16, 196_608, 1.0, True)]
SIZES += [(64, 12_288, 0.0, False), (16, 196_608, 0.0, False), (64, 12_289, 1.0, True), (3, 17_001, 1.0, True)]
SIZES += [(1, 1, 1.0, True)]
AWKWARD = [(1, 1, 1.0, True), (3, 4099, 0.0, False), (2, 17_001, 1.0, True), (0, 3, 1.0, True)]
ELEMENT = {"HAS_OUT=False": None, "finish_kernel": None, "double|products|mix": 2, "whole|squares|scale": 1}
TUNE = {"HOLD": (8192, 16384), "BLOCK": (2048, 4096, 8192)}
NARROW = {"kernel (?!.*size%16)(?!.*true)": "samples start anywhere: masked tiles, or in CUDA single elements"}


def calls(t, batch, size, target, everything):
    if t(1).dtype == torch.float16 and t(1).device.type == "meta":
        return  # the machine code of bfloat16 differs in names alone
    g, c, penalty, norms = t(batch, size), t(batch, size), t(dtype=torch.float32), t(batch, dtype=torch.float32)
    phi = (10.0, target, target > 0)  # weight, target, one-sided
    cotangents = (penalty if everything else None, norms)
    yield "gradient_penalty", (g, *phi, everything)
    yield "gradient_penalty_backward", (*cotangents, g, norms, *phi)
    yield "gradient_penalty_double_backward", (c, *cotangents, g, norms, *phi)
