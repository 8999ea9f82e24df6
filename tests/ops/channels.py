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


def assert_third(ours, formula, made):
    """The third derivatives of both functions at ``made`` agree."""
    thirds = []
    for function in (ours, formula):
        leaves = [v.clone().requires_grad_() for v in made]
        value = function(*leaves).pow(3).sum()
        for _ in range(2):
            value = sum(g.square().sum() for g in torch.autograd.grad(value, leaves, create_graph=True))
        thirds.append(torch.autograd.grad(value, leaves))
    for got, wanted in zip(*thirds):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
