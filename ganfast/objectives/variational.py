"""The terms of a variational bound, in nats of each sample (Kingma and Welling 2013, arXiv:1312.6114).

log p(x) ≥ ELBO = E_q(z∣x)[log p(x∣z)] − KL(q(z∣x) ‖ p(z)), with q a Gaussian of diagonal covariance and p(z) = N(0, 1).
"""

import math

import torch
from torch import Tensor

from ganfast.reference.wide import wide


def reparameterize(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """z [B, n] ~ N(mean, exp(log_variance)) from ``noise`` ~ N(0, 1)."""
    return mean + (log_variance / 2).exp() * noise


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) ‖ N(0, 1)) [B], summed over the numbers of a code [B, n]."""
    mean, log_variance = wide(mean), wide(log_variance)
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2


def bernoulli_log_likelihood(images: Tensor, means: Tensor) -> Tensor:
    """Σ x·log p + (1−x)·log(1−p) [B] over pixels, x = (images + 1)/2 and p = (means + 1)/2, both given in [−1, 1].

    A probability only where pixels are black or white; of grey ones it is the usual cross-entropy. p stays 5e-7 away
    from 0 and 1.
    """
    x, y = (wide(images) + 1) / 2, wide(means).clamp(-1 + 1e-6, 1 - 1e-6)
    likelihood = x * torch.log1p(y) + (1 - x) * torch.log1p(-y) - math.log(2)
    return likelihood.flatten(1).sum(1)


def gaussian_log_likelihood(images: Tensor, means: Tensor, log_deviation: Tensor) -> Tensor:
    """log N(x; p, σ²) [B], summed over pixels in [0, 1]: x = (images + 1)/2, p = (means + 1)/2, σ is one number."""
    log_deviation = wide(log_deviation)
    error = (wide(images) - wide(means)) / 2 * (-log_deviation).exp()
    return -(error.square() / 2 + log_deviation + math.log(2 * math.pi) / 2).flatten(1).sum(1)
