"""f-GAN: six divergences by their variational bound (Nowozin, Cseke and Tomioka 2016, arXiv:1606.00709).

    D_f(P‖Q) = ∫ q·f(p/q) ≥ E_P[T] − E_Q[f*(T)],   f*(t) = sup_u(u·t − f(u)),   equal for T* = f'(p/q)

P is the data and Q the generator. A critic's scores v become T = g_f(v), which maps ℝ into the domain of f*. Plain
PyTorch: docs/kernels/sigmoid_bce.md has what operators of their own would save.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ganfast.reference.wide import wide

Elementwise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Divergence:
    """One row of the paper's tables 1, 2, 5 and 6; functions are elementwise and differentiable twice."""

    f: Elementwise
    """f(u) of u = p/q > 0, convex, f(1) = 0 except for that of 'gan'"""
    conjugate: Elementwise
    """f*(t) for t < upper"""
    upper: float
    """the domain of f* is (−∞, upper)"""
    activation: Elementwise
    """g_f(v), increasing; finite for every v but where its value exceeds the type's range"""
    fake_term: Elementwise
    """f*(g_f(v)), simplified: f* of a rounded g_f(v) would be infinite near the end of its domain"""
    optimal: Elementwise
    """T*(u) = f'(u)"""
    threshold: float
    """f'(1): a critic with T > f'(1) takes the sample for real"""


LOG2 = math.log(2)

DIVERGENCES = {
    # ∫ p·log(p/q)
    "kullback-leibler": Divergence(
        f=lambda u: torch.xlogy(u, u),
        conjugate=lambda t: (t - 1).exp(),
        upper=math.inf,
        activation=lambda v: v,
        fake_term=lambda v: (v - 1).exp(),
        optimal=lambda u: 1 + u.log(),
        threshold=1.0,
    ),
    # ∫ q·log(q/p)
    "reverse-kl": Divergence(
        f=lambda u: -u.log(),
        conjugate=lambda t: -1 - (-t).log(),
        upper=0.0,
        activation=lambda v: -(-v).exp(),
        fake_term=lambda v: v - 1,
        optimal=lambda u: -1 / u,
        threshold=-1.0,
    ),
    # ∫ (p − q)²/q; f* is that of f on all of ℝ: for u ≥ 0 alone it would be −1, without a gradient, for t < −2
    "pearson-chi2": Divergence(
        f=lambda u: (u - 1).square(),
        conjugate=lambda t: t.square() / 4 + t,
        upper=math.inf,
        activation=lambda v: v,
        fake_term=lambda v: v.square() / 4 + v,
        optimal=lambda u: 2 * (u - 1),
        threshold=0.0,
    ),
    # ∫ (√p − √q)²
    "squared-hellinger": Divergence(
        f=lambda u: (u.sqrt() - 1).square(),
        conjugate=lambda t: t / (1 - t),
        upper=1.0,
        activation=lambda v: -torch.expm1(-v),
        fake_term=torch.expm1,
        optimal=lambda u: 1 - u.rsqrt(),
        threshold=0.0,
    ),
    # ∫ p·log(2p/(p + q)) + q·log(2q/(p + q)): twice Jensen and Shannon's, as the paper's f has it but not its integral
    "jensen-shannon": Divergence(
        f=lambda u: torch.xlogy(u, u) - (u + 1) * ((u + 1) / 2).log(),
        conjugate=lambda t: -(2 - t.exp()).log(),
        upper=LOG2,
        activation=lambda v: LOG2 + F.logsigmoid(v),
        fake_term=lambda v: -LOG2 - F.logsigmoid(-v),
        optimal=lambda u: LOG2 - torch.log1p(1 / u),
        threshold=0.0,
    ),
    # ∫ p·log(p/(p + q)) + q·log(q/(p + q)): that of "jensen-shannon" less log 4
    "gan": Divergence(
        f=lambda u: torch.xlogy(u, u) - (u + 1) * (u + 1).log(),
        conjugate=lambda t: -torch.log(-torch.expm1(t)),
        upper=0.0,
        activation=F.logsigmoid,
        fake_term=lambda v: -F.logsigmoid(-v),
        optimal=lambda u: -torch.log1p(1 / u),
        threshold=-LOG2,
    ),
}


def discriminator_f(divergence: Divergence, real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """−E[g_f(V(x))] + E[f*(g_f(V(G(z))))], a scalar: minus the bound, an estimate of the divergence."""
    return divergence.fake_term(wide(fake_scores)).mean() - divergence.activation(wide(real_scores)).mean()


def generator_f_minimax(divergence: Divergence, fake_scores: Tensor) -> Tensor:
    """−E[f*(g_f(V(G(z))))], a scalar: the bound, which the paper's algorithm 1 descends."""
    return -divergence.fake_term(wide(fake_scores)).mean()


def generator_f_non_saturating(divergence: Divergence, fake_scores: Tensor) -> Tensor:
    """−E[g_f(V(G(z)))], a scalar: the alternative of the paper's section 3.2."""
    return -divergence.activation(wide(fake_scores)).mean()
