"""interpolate's Triton kernel against the formula in fp64."""

import torch
from interpreted.backends import triton

from ganfast.ops import interpolate as op


def kernel() -> None:
    torch.manual_seed(0)
    for dtype, bound in ((torch.float32, 3e-7), (torch.float16, 2**-11 + 3e-7)):
        for shape in ((1, 1), (7,), (5, 3, 7), (2, 4096), (3, 4099), (2, 9001), (0, 4), (3, 0)):
            real, fake = (torch.randn(shape).to(dtype) for _ in range(2))
            epsilon = torch.rand(shape[0])
            e = epsilon.double().reshape(-1, *[1] * (len(shape) - 1))
            for x, y in ((real, fake), (real, None), (None, fake)):
                got = triton(op.interpolate, x, y, epsilon)
                parts = [f * z.double() for f, z in ((e, x), (1 - e, y)) if z is not None]
                error, size = (got.double() - sum(parts)).abs(), sum(p.abs() for p in parts)
                assert got.dtype == dtype and got.shape == shape
                assert bool((error <= bound * size + 2**-24).all()), (dtype, shape, error.max())
