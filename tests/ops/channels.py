"""Tensors [N, C, ...] and backends for the tests of normalisation."""

import torch

from ganfast.ops._backends import available

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# fp32: sums of fp32 lanes and the rounding of mean and r; half types: the rounding of the result
BOUNDS = {torch.float32: 3e-6, torch.float16: 2**-11 + 3e-6, torch.bfloat16: 2**-8 + 3e-6}


def backends(device):
    names = ("cpu",) if device == "cpu" else ("triton",)
    return [n for n in names if available(n, torch.device(device)) is True] + ["reference"]


def laid(x, layout):
    """The same numbers, contiguous, with the channels last, or with gaps."""
    if layout == "last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    return torch.stack([x, x], -1)[..., 0] if layout == "gaps" else x
