"""gradient_penalty's Triton kernels against the reference in fp64."""

import torch
from ganfast.kernels import gradient_penalty as kernels
from interpreted.backends import triton

from ganfast.ops import gradient_penalty as op

PHIS = (7.0, 1.0, False), (7.0, 1.0, True), (3.5, 0.0, False)  # weight, target, one-sided


def close(got, wanted, slack, bound, where):
    """Compares sample by sample."""
    error = (got.double() - wanted).reshape(len(slack), -1).norm(dim=1)
    limit = slack + bound * wanted.reshape(len(slack), -1).norm(dim=1) + 2**-24 * (got[:1].numel() ** 0.5)
    assert bool((error <= limit).all()), (where, error, limit)


def all_kernels(hold) -> None:
    """Forward, backward and double backward, of programs that hold samples of `hold` elements."""
    torch.manual_seed(0)
    kernels.HOLD = hold
    if hold == 64:
        kernels.BLOCK, kernels.MAX_CHUNKS = 128, 4
    for dtype, bound in ((torch.float32, 1e-6), (torch.float16, 2**-11 + 1e-6)):
        for shape in ((1, 1), (7,), (5, 3, 7), (2, 129), (3, 1001), (4, 0), (0, 3)):
            g, c = torch.randn(shape), torch.randn(shape)
            lengths = g.reshape(shape[0], g[:1].numel()).norm(dim=1).reshape(-1, *[1] * (len(shape) - 1))
            g = (g / lengths * (0.2 + 2 * torch.rand(shape[0])).reshape(lengths.shape)).to(dtype)
            g[:1] = 0
            c, c_norms, c_penalty = c.to(dtype), torch.randn(shape[0]), torch.tensor(1.5)
            n = g.double().reshape(shape[0], g[:1].numel()).norm(dim=1)
            w = c.double().reshape(shape[0], g[:1].numel()).norm(dim=1)
            for phi in PHIS:
                where = (dtype, shape, phi)
                penalty, norms, seed = triton(op.gradient_penalty, g, *phi, True)
                first = triton(op.gradient_penalty_backward, c_penalty, c_norms, g, norms, *phi)
                only = triton(op.gradient_penalty_backward, None, c_norms, g, norms, *phi)
                second = triton(op.gradient_penalty_double_backward, c, c_penalty, c_norms, g, norms, *phi)
                p, n64, v = op._reference(g.double(), *phi)
                cotangents = c_penalty.double(), c_norms.double(), g.double(), n64
                if shape[0] == 0:
                    assert penalty.isnan() and float(second[0]) == 0 and first.shape == shape
                    continue
                scale, off = 2 * phi[0] / shape[0], 2e-6 * n
                assert bool(((norms - n).abs() <= off).all()), where
                assert abs(float(penalty - p)) <= 1e-6 * float(p) + float((scale * (n + 1) * off).sum()), where
                close(seed, v, scale * off, bound, where)
                close(first, op._reference_backward(*cotangents, *phi), 2 * scale * off + 1e-5, bound, where)
                close(only, op._reference_backward(None, *cotangents[1:], *phi), off + 1e-5, bound, where)
                dp, dn, dg = op._reference_double(c.double(), *cotangents, *phi)
                assert abs(float(second[0] - dp)) <= 1e-5 * float((scale * (n + 1) * w).sum()), where
                assert bool(((second[1] - dn).abs() <= 4e-6 * w).all()), where
                inverse = torch.where(n > 0, 1 / n, 0)
                slack = 1e-5 * (scale * (1 + inverse) + c_norms.abs() * inverse) * w
                close(second[2], dg, slack, bound, where)
                again = triton(op.gradient_penalty, g, *phi, False)
                assert torch.equal(again[0], penalty) and torch.equal(again[1], norms) and again[2].shape == (0,)


def sums_out_of_range() -> None:
    torch.manual_seed(0)
    for hold, block in ((16384, 4096), (64, 128)):
        kernels.HOLD, kernels.BLOCK = hold, block
        for size in (1e-30, 1e30):
            g = size * torch.randn(3, 300)
            n = g.double().norm(dim=1)
            _, norms, seed = triton(op.gradient_penalty, g, 10.0, 1.0, False, True)
            assert bool(((norms - n).abs() <= 2e-6 * n).all()), (hold, size)
            wanted = 20 / 3 * ((n - 1) / n)[:, None] * g.double()
            close(seed, wanted, 2e-6 * wanted.norm(dim=1), 1e-6, (hold, size))
        g = torch.randn(3, 300)
        g[1, 7] = float("nan")
        g[2, 8] = float("inf")
        penalty, norms, _ = triton(op.gradient_penalty, g, 10.0, 1.0, False, True)
        assert norms.isnan().tolist() == [False, True, False] and float(norms[2]) == float("inf")
        assert penalty.isnan()
