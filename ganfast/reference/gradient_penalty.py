"""The part of a gradient penalty that is not the critic, and its two derivatives, in plain PyTorch.

    P = (1/B) Σ_i φ(n_i),  n_i = ‖g_i‖₂ over *all* dimensions of sample i,  φ(n) = w·(n − t)²  or  w·max(0, n − t)²

Gulrajani et al. 2017 (t = 1), Petzka et al. 2018 (one-sided), Mescheder et al. 2018 (R1, R2: w = γ/2, t = 0).
Sums are in fp32 (fp64 for fp64). Where a sample's gradient is zero, the derivative of its norm is taken as 0.
"""

import torch

from ganfast.reference.wide import wide


def _rows(x):
    return wide(x).flatten(1) if x.dim() > 1 else wide(x).unsqueeze(1)


def _per_sample(v, x):
    """v [B] against x [B, ...]."""
    return v.reshape(-1, *[1] * (x.dim() - 1))


def sample_norms(g):
    """‖g_i‖₂ over all dimensions but the first: [B]. Where it is 0, so is its derivative."""
    squares = _rows(g).square().sum(1)
    zero = squares == 0
    return torch.where(zero, torch.zeros_like(squares), torch.where(zero, torch.ones_like(squares), squares).sqrt())


def _curve(n, weight, target, one_sided):
    """Of each norm: 1/n, φ'/B, φ'/(B·n) and φ''/B − φ'/(B·n)."""
    inverse = torch.where(n == 0, torch.zeros_like(n), 1 / torch.where(n == 0, torch.ones_like(n), n))
    scale = 2 * weight / max(n.numel(), 1)
    active = ~(n < target) if one_sided else torch.ones_like(n, dtype=torch.bool)  # a nan stays
    slope = torch.where(active, scale * (n - target), torch.zeros_like(n))
    flat = slope * inverse if target else torch.full_like(n, scale)
    return inverse, slope, flat, torch.where(active, scale * target * inverse, torch.zeros_like(n))


def gradient_penalty(g, weight=10.0, target=1.0, one_sided=False):
    """P, the norms [B], and the seed v = ∂P/∂g, v_i = φ'(n_i)·g_i/(B·n_i), in the dtype of g; g [B, ...]."""
    norms = sample_norms(g)
    excess = norms - target
    if one_sided:
        excess = excess.clamp(min=0)
    # with t = 0 through the squares, which have a second derivative where the norm is zero
    terms = excess.square() if target else _rows(g).square().sum(1)
    inverse, slope, flat, _ = _curve(norms, weight, target, one_sided)
    seed = wide(g) * _per_sample(slope * inverse if target else flat, g)
    return weight * terms.mean(), norms, seed.to(g.dtype)


def gradient_penalty_backward(c_penalty, c_norms, g, norms, weight=10.0, target=1.0, one_sided=False):
    """The cotangent of g from those of P and of the norms (either may be None): (c_P·φ'/B + c_n)·g/n."""
    inverse, slope, _, _ = _curve(norms, weight, target, one_sided)
    along = 0 if c_penalty is None else c_penalty * slope
    along = along if c_norms is None else along + c_norms
    return (wide(g) * _per_sample(along * inverse, g)).to(g.dtype)


def gradient_penalty_double_backward(c, c_penalty, c_norms, g, norms, weight=10.0, target=1.0, one_sided=False):
    """From the cotangent c of the backward's result, those of c_P, c_n and g.

    With ĝ = g/n and s = ĝ·c of each sample:  Σ_i s_i·φ'_i/B,  s,  and
    c_P·(φ'/(B·n)·c + (φ''/B − φ'/(B·n))·s·ĝ) + c_n·(c − s·ĝ)/n.
    """
    inverse, slope, flat, bend = _curve(norms, weight, target, one_sided)
    s = (_rows(g) * inverse[:, None] * _rows(c)).sum(1)
    p = 0 if c_penalty is None else c_penalty
    q = torch.zeros_like(norms) if c_norms is None else c_norms * inverse
    dg = _per_sample((p * bend - q) * s * inverse, g) * wide(g) + _per_sample(p * flat + q, g) * wide(c)
    return (slope * s).sum(), s, dg.to(g.dtype)
