"""Gradients for gradient_penalty and its check against fp64, for its two test files."""

import torch

from ganfast import ops
from ganfast.ops.gradient_penalty import gradient_penalty, gradient_penalty_backward, gradient_penalty_double_backward

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# A sum over one sample, against the sum of its terms' magnitudes: a lane or thread adds at most 64 terms in fp32 and
# some 30 sums follow in fp32 or double: √100·2^-24 = 6e-7 for random terms. A norm has half of it.
SUM = 2e-6
# The rounding of a result: a few fp32 products, or half an ulp of a half type.
ROUND = {torch.float32: 5e-7, torch.float16: 2**-11 + 5e-7, torch.bfloat16: 2**-8}
TINY = {torch.float32: 2**-126, torch.float16: 2**-24, torch.bfloat16: 2**-126}  # per element: what may be flushed to 0


def backends(device):
    """The backends that can run here."""
    rows = [row for row in ops.table() if row[0] == "gradient_penalty" and row[1] == device]
    return [name for _, _, name, answer in rows if answer is True]


def gradients(*shape, dtype=torch.float32, device="cpu"):
    """Samples with norms from 0.1 to 3, on both sides of the targets."""
    g = torch.randn(shape, device=device)
    norms = g.flatten(1).norm(dim=1) if g.dim() > 1 else g.abs()
    wanted = 0.1 + 2.9 * torch.rand(shape[0], device=device)
    return (g * (wanted / norms.clamp(min=1e-6)).reshape(-1, *[1] * (g.dim() - 1))).to(dtype)


def rows(x):
    """[B, elements] in fp64, elements in the order of the dimensions."""
    return x.detach().double().flatten(1) if x.dim() > 1 else x.detach().double()[:, None]


def check_samples(got, wanted, slack, dtype):
    """Sample by sample ‖got − wanted‖ ≤ slack + rounding of the result."""
    assert got.shape == wanted.shape and got.dtype == dtype
    error, size = (rows(got) - rows(wanted)).norm(dim=1), rows(wanted).norm(dim=1)
    limit = slack + ROUND[dtype] * size + TINY[dtype] * rows(got).shape[1] ** 0.5
    assert bool((error <= limit).all()), f"{error} > {limit}"  # NaN fails


def check_against_reference(g, weight, target, one_sided):
    """Penalty, norms, seed and both derivatives of the current backend against fp64."""
    phi, batch, dtype = (weight, target, one_sided), g.shape[0], g.dtype
    c, c_norms = torch.randn_like(g), torch.randn(batch, device=g.device)
    c_penalty = torch.tensor(1.5, device=g.device)
    penalty, norms, seed = gradient_penalty(g, *phi, True)
    first = gradient_penalty_backward(c_penalty, c_norms, g, norms, *phi)
    dc_penalty, dc_norms, second = gradient_penalty_double_backward(c, c_penalty, c_norms, g, norms, *phi)
    with ops.use_backend("reference"):
        p, n, v = gradient_penalty(g.double(), *phi, True)
        cotangents = c_penalty.double(), c_norms.double(), g.double(), n
        wanted_first = gradient_penalty_backward(*cotangents, *phi)
        dp, dn, wanted_second = gradient_penalty_double_backward(c.double(), *cotangents, *phi)
    scale, off = 2 * weight / max(batch, 1), SUM * n
    assert penalty.dtype == norms.dtype == torch.float32 and penalty.shape == () and norms.shape == (batch,)
    assert bool(((norms - n).abs() <= off).all())
    # φ = w·(n − t)² moves by 2w·|n − t|·δn + w·δn², its slope by 2w·δn
    moved = float((scale * (n - target).abs() * off + scale / 2 * off.square()).sum())
    assert abs(float(penalty) - float(p)) <= moved + 1e-6 * float(p) + 2**-126
    check_samples(seed, v, scale * off, dtype)
    check_samples(first, wanted_first, 1.5 * scale * off + 1e-6 * c_norms.abs(), dtype)
    length, inverse = rows(c).norm(dim=1), torch.where(n > 0, 1 / n, 0)
    assert bool(((dc_norms - dn).abs() <= SUM * length).all())  # Σ|ĝ·c| ≤ ‖c‖
    assert abs(float(dc_penalty) - float(dp)) <= float((scale * (target + 2 * n) * 2 * SUM * length).sum()) + 2**-126
    bends = (1.5 * scale * (1 + target * inverse) + c_norms.abs() * inverse) * length
    check_samples(second, wanted_second, 4 * SUM * bends, dtype)
    return seed, first, second
