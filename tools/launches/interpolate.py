"""The launches of interpolate; sizes are the batch, a sample's elements and the sides that are there."""

import torch

SIZES = [(64, 12_288, "both"), (64, 12_288, "real"), (64, 12_288, "fake"), (64, 12_289, "both"), (1, 1, "both")]
AWKWARD = [(1, 1, "both"), (3, 4099, "both"), (2, 77, "real"), (0, 4, "fake")]
ELEMENT = {"interpolate_kernel .*=False": 1, "interpolate_kernel": 2}
TUNE = {"BLOCK": (1024, 2048, 4096, 8192), "WARPS": (4, 8, 16)}
NARROW = {
    "kernel (?!.*size%16)": "samples start anywhere and tiles are masked",
    "kernel .*false": "not aligned to 16 bytes",
}


def calls(t, batch, size, sides):
    real, fake, epsilon = t(batch, size), t(batch, size), t(batch, dtype=torch.float32)
    yield "interpolate", (real if sides != "fake" else None, fake if sides != "real" else None, epsilon)
