"""Arguments of pairwise_l1 and its check against fp64, for its two test files."""

import torch

from ganfast import ops
from ganfast.ops.pairwise_l1 import pairwise_l1, pairwise_l1_backward, pairwise_l1_double_backward

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ROUND = {torch.float32: 0.0, torch.float16: 2**-11, torch.bfloat16: 2**-8}  # of the result
TINY = {torch.float32: 1e-30, torch.float16: 2**-25, torch.bfloat16: 1e-30}  # half the smallest subnormal, per element


def sum_bound(kd, others):
    """Of a sum of `others` terms e in fp32, against the sum of their magnitudes.

    An e is off by its argument's rounding, ½ ulp for each of kd additions to a distance of about 2 where e counts, and
    by 2 ulp of its own; the sum by a random walk of √others half ulps. 8 for the rest.
    """
    return 2**-24 * (8 + 2 * kd + others**0.5)


def backends(device, kd=1):
    """The backends that can run here."""
    rows = [row for row in ops.table() if row[0] == "pairwise_l1" and row[1] == device]
    return [name for _, _, name, answer in rows if answer is True and not (name == "cuda" and kd > 32)]


def wide(*tensors):
    return [None if t is None else t.detach().double() for t in tensors]


def make(rows, others, nk, kd, dtype=torch.float32, device="cpu"):
    """crows, cothers, g, rows, others: entries ~1/kd apart, two rows alike, one equal in its first dimension only."""

    def draw(n):
        x = torch.randn(n, nk, kd, device=device) / max(kd, 1)
        x[1:2] = x[:1]
        x[2:3, :, :1] = x[:1, :, :1]
        return x.to(dtype)

    x, y = draw(rows), None if others is None else draw(others)
    if y is not None and rows and others:
        y[0] = x[0]
    c = [None if t is None else torch.randn_like(t) for t in (x, y)]
    return *c, torch.randn(rows, nk, device=device).to(dtype), x, y


def magnitudes(crows, cothers, g, rows, others):
    """Σ of the terms' magnitudes of o, of the first gradients, of dg and of the second ones; fp64."""
    alone = others is None
    cothers, others = (crows, rows) if alone else (cothers, others)
    e = torch.exp(-(rows[:, None] - others[None]).abs().sum(-1))  # [R, B, nk]
    t = (cothers[None] - crows[:, None]).abs().sum(-1)
    weight = g.abs()[:, None] + (g.abs()[None] if alone else 0)
    out = []
    for terms in (e, e * t):
        pulled = weight * terms
        out += [terms.sum(1), pulled.sum(1)[..., None].expand_as(rows), pulled.sum(0)[..., None].expand_as(others)]
    return out


def everything(crows, cothers, g, rows, others):
    """o, drows, dothers, dg, drows, dothers of the operators."""
    return [
        pairwise_l1(rows, others),
        *pairwise_l1_backward(g, rows, others),
        *pairwise_l1_double_backward(crows, cothers, g, rows, others),
    ]


def check(arguments):
    """Values, gradients and second derivatives of the current backend against fp64."""
    _, _, _, rows, others = arguments
    count, kd = (rows if others is None else others).shape[0], rows.shape[2]
    got = everything(*arguments)
    with ops.use_backend("reference"):
        wanted = everything(*wide(*arguments))
    for k, (a, b, size) in enumerate(zip(got, wanted, magnitudes(*wide(*arguments)))):
        assert a.shape == b.shape and a.dtype == rows.dtype and a.is_contiguous()
        if b.numel() == 0:
            continue
        terms = max(count, rows.shape[0]) if k in (2, 5) else count
        limit = sum_bound(kd, terms) * float(size.norm()) + ROUND[rows.dtype] * float(b.norm())
        limit += TINY[rows.dtype] * b.numel() ** 0.5
        error = float((a.double() - b).norm())
        assert error <= limit, f"result {k}: {error} > {limit}"  # NaN fails
