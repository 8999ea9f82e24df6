"""Losses of scores or logits of any shape.

Those of logits (Goodfellow et al. 2014, arXiv:1406.2661) are finite for every one, and one operator for both sides.
The others are plain PyTorch: docs/kernels/sigmoid_bce.md has what operators of their own would save.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ganfast.functional import sigmoid_bce
from ganfast.reference.wide import wide


def discriminator_bce(
    real_logits: Tensor, fake_logits: Tensor, real_target: float = 1.0, fake_target: float = 0.0
) -> Tensor:
    """−E[α·log σ(D(x)) + (1−α)·log(1−σ(D(x)))] − E[β·log σ(D(G(z))) + (1−β)·log(1−σ(D(G(z))))], a scalar.

    ``real_target`` α below 1 is one-sided label smoothing (Salimans et al. 2016, arXiv:1606.03498), ``fake_target`` β.
    """
    return sigmoid_bce(real_logits, fake_logits, real_target, fake_target)


def generator_non_saturating(fake_logits: Tensor) -> Tensor:
    """−E[log σ(D(G(z)))], a scalar: strong gradients while the discriminator wins."""
    return sigmoid_bce(fake_logits, None, 1.0)


def generator_minimax(fake_logits: Tensor) -> Tensor:
    """E[log(1 − σ(D(G(z))))], a scalar: the zero-sum game as written, whose gradient fades while D wins."""
    return -sigmoid_bce(None, fake_logits, fake_target=0.0)


def wasserstein(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E[D(x)] − E[D(G(z))], a scalar: what the critic raises and the generator lowers (Arjovsky et al. 2017)."""
    return real_scores.mean() - fake_scores.mean()


def least_squares(scores: Tensor, target: float) -> Tensor:
    """E[(D − target)²], a scalar: one side of least-squares GAN, without its ½ (Mao et al. 2017, arXiv:1611.04076)."""
    scores = wide(scores)
    return F.mse_loss(scores, torch.full_like(scores, target))  # its backward is one launch, that of a square three


def discriminator_least_squares(real_scores: Tensor, fake_scores: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """½·E[(D(x) − b)²] + ½·E[(D(G(z)) − a)²], a scalar (Mao et al. 2017, arXiv:1611.04076).

    ``a`` is the target of fake and ``b`` that of real samples; the optimum is D* = (b·p + a·q)/(p + q). The defaults
    are the paper's 0-1 coding; a = −1, b = 1 with the generator's c = 0 minimise Pearson's χ² of p + q and 2q.
    """
    return 0.5 * (least_squares(real_scores, b) + least_squares(fake_scores, a))


def generator_least_squares(fake_scores: Tensor, c: float = 1.0) -> Tensor:
    """½·E[(D(G(z)) − c)²], a scalar; ``c`` is what G wants D to say of its samples (Mao et al. 2017)."""
    return 0.5 * least_squares(fake_scores, c)


def discriminator_hinge(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E[max(0, 1 − D(x))] + E[max(0, 1 + D(G(z)))], a scalar: the maximum margin; the optimum is D* = sign(p − q).

    Geometric GAN (Lim and Ye 2017, arXiv:1705.02894); with spectral norm, Miyato et al. 2018 (arXiv:1802.05957).
    """
    return (1 - wide(real_scores)).relu().mean() + (1 + wide(fake_scores)).relu().mean()


def generator_hinge(fake_scores: Tensor) -> Tensor:
    """−E[D(G(z))], a scalar: the generator's side of ``discriminator_hinge``."""
    return -wide(fake_scores).mean()


# the generator's side, by the name the command line gives it
LOSSES = {"non-saturating": generator_non_saturating, "minimax": generator_minimax}
