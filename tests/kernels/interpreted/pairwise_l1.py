"""pairwise_l1's Triton kernels against the plain formulas in fp64."""

import torch
from ganfast.kernels import pairwise_l1 as kernels

from ganfast.ops import pairwise_l1 as op


def wide(*tensors):
    return [None if t is None else t.double() for t in tensors]


def all_kernels() -> None:
    """Forward, backward and double backward."""
    kernels.BLOCK_I = 8
    shapes = ((1, None, 1, 1), (9, None, 2, 5), (5, 19, 3, 4), (10, 1, 1, 17), (10, 9, 2, 8))
    shapes += ((5, 0, 2, 2), (0, 4, 2, 2), (4, 3, 2, 0), (4, None, 0, 3))
    for dtype, rounding in ((torch.float32, 0), (torch.float16, 2**-11)):
        for rows, others, nk, kd in shapes:
            torch.manual_seed(0)
            x = (torch.randn(rows, nk, kd) / max(kd, 1)).to(dtype)
            y = None if others is None else (torch.randn(others, nk, kd) / max(kd, 1)).to(dtype)
            x[1:2] = x[:1]
            cx, cy = (None if t is None else torch.randn_like(t) for t in (x, y))
            g = torch.randn(rows, nk).to(dtype)
            got = [op._triton_sums(x, y), *op._triton_backward(g, x, y), *op._triton_double(cx, cy, g, x, y)]
            wanted = [op._plain_sums(*wide(x, y)), *op._plain_backward(*wide(g, x, y))]
            wanted += op._plain_double(*wide(cx, cy, g, x, y))
            for i, (a, b) in enumerate(zip(got, wanted)):
                assert a.shape == b.shape and a.dtype == dtype, i
                error = float((a.double() - b).norm())
                assert error <= (2e-6 + rounding) * float(b.norm()), (dtype, rows, others, nk, kd, i, error)
