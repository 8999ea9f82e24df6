"""sigmoid_bce's Triton kernels against the plain formulas in fp64."""

import torch
from interpreted.backends import both

from ganfast.ops import sigmoid_bce as op


def all_kernels() -> None:
    """Forward, backward and double backward."""
    for dtype, bound in ((torch.float32, 2e-6), (torch.float16, 2**-10)):
        for n, m in ((1, 5), (4096, 4097), (9001, 0), (0, 0), (3, None), (None, 5000)):
            torch.manual_seed(0)
            real, fake = (None if k is None else (8 * torch.randn(k)).to(dtype) for k in (n, m))
            c = [None if x is None else torch.randn_like(x) for x in (real, fake)]
            g = torch.tensor(512.0)
            args = real, fake, 0.9, 0.1
            calls = [(op.sigmoid_bce, *args), (op.sigmoid_bce_backward, g, *args)]
            got, wanted = both([*calls, (op.sigmoid_bce_double_backward, *c, g, *args)])
            for i, (a, b) in enumerate(zip(got, wanted)):
                if m == 0 and i == 0:
                    assert a.isnan(), (dtype, n, m, i)  # the mean of an empty side
                    continue
                assert a.shape == b.shape
                error, size = float((a.double() - b).norm()), float(b.norm())
                assert error <= bound * size + 1e-6 * (i == 3), (dtype, n, m, i, error, size)
