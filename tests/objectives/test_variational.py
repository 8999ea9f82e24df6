"""The terms of the variational bound against closed forms and torch.distributions."""

import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from ganfast.objectives import bernoulli_log_likelihood, gaussian_kl, gaussian_log_likelihood, reparameterize

equal = torch.testing.assert_close


def test_the_kl_of_gaussians():
    mean, log_variance = torch.randn(5, 3).double(), torch.randn(5, 3).double()
    q = Normal(mean, (log_variance / 2).exp())
    equal(gaussian_kl(mean, log_variance), kl_divergence(q, Normal(0.0, 1.0)).sum(1))
    equal(gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 3)), torch.zeros(2))
    noise = torch.randn(5, 3).double()
    equal(reparameterize(mean, log_variance, noise), q.mean + q.stddev * noise)


def test_likelihoods_of_pixels():
    images, means = torch.rand(4, 2, 3, 3).double() * 2 - 1, torch.rand(4, 2, 3, 3).double() * 1.9 - 0.95
    x, p = (images + 1) / 2, (means + 1) / 2
    expected = Bernoulli(probs=p, validate_args=False).log_prob(x).flatten(1).sum(1)
    equal(bernoulli_log_likelihood(images, means), expected)
    log_deviation = torch.tensor([-0.7]).double()
    expected = Normal(p, log_deviation.exp()).log_prob(x).flatten(1).sum(1)
    equal(gaussian_log_likelihood(images, means, log_deviation), expected)


def test_saturated_pixels_are_finite_and_sums_are_wide():
    black = -torch.ones(2, 1, 64, 64)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        means = (-black).to(dtype).requires_grad_()
        likelihood = bernoulli_log_likelihood(black.to(dtype), means)
        assert likelihood.dtype is torch.float32 and likelihood.isfinite().all() and (likelihood < -50_000).all()
        likelihood.sum().backward()
        assert means.grad.isfinite().all()
    assert (bernoulli_log_likelihood(black, black).abs() < 0.01).all()
