"""pairwise_l1's Triton kernels against the plain formulas in fp64."""

import torch
from ganfast.kernels import pairwise_l1 as kernels
from interpreted.backends import both

from ganfast.ops import pairwise_l1 as op


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
            calls = [(op.pairwise_l1, x, y), (op.pairwise_l1_backward, g, x, y)]
            got, wanted = both([*calls, (op.pairwise_l1_double_backward, cx, cy, g, x, y)])
            for i, (a, b) in enumerate(zip(got, wanted)):
                assert a.shape == b.shape and a.dtype == dtype, i
                error = float((a.double() - b).norm())
                assert error <= (2e-6 + rounding) * float(b.norm()), (dtype, rows, others, nk, kd, i, error)
