"""The reference of gradient_penalty against loops over samples, and its written derivatives against autograd."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ganfast.reference import gradient_penalty, sample_norms
from ganfast.reference.gradient_penalty import gradient_penalty_backward, gradient_penalty_double_backward

PHIS = [(7.0, 1.0, False), (7.0, 1.0, True), (3.5, 0.0, False), (2.0, 0.3, True)]  # weight, target, one-sided


def gradients():
    g = torch.randn(4, 2, 3, dtype=torch.float64)
    g[0] *= 0.05  # a norm below the targets
    return g


def test_norms_are_per_sample_over_every_other_dimension():
    g = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    norms = sample_norms(g)
    for i in range(4):
        assert abs(float(norms[i]) - sum(float(v) ** 2 for v in g[i].flatten()) ** 0.5) < 1e-12


def test_norms_of_half_gradients_do_not_overflow():
    g = torch.full((2, 1000), 100.0, dtype=torch.float16)  # Σ g² = 1e7 > 65504
    torch.testing.assert_close(sample_norms(g), torch.full((2,), 1e7**0.5))


@pytest.mark.parametrize("phi", PHIS)
def test_penalty_and_seed(phi):
    weight, target, one_sided = phi
    g = gradients()
    excess = [float(sample.norm()) - target for sample in g]
    terms = [weight * (max(0, e) if one_sided else e) ** 2 for e in excess]
    value, norms, seed = gradient_penalty(g, *phi)
    assert abs(float(value) - sum(terms) / 4) < 1e-12
    assert torch.equal(norms, sample_norms(g))
    leaf = g.clone().requires_grad_()
    assert gradcheck(lambda x: gradient_penalty(x, *phi), (leaf,))
    assert gradgradcheck(lambda x: gradient_penalty(x, *phi)[0], (leaf,))
    torch.testing.assert_close(seed, torch.autograd.grad(gradient_penalty(leaf, *phi)[0], leaf)[0])
    if one_sided:
        assert torch.equal(seed[0], torch.zeros_like(seed[0]))


@pytest.mark.parametrize("phi", PHIS)
def test_written_derivatives_are_those_of_autograd(phi):
    g = gradients().requires_grad_()
    c_penalty, c_norms = torch.randn((), dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    c_penalty.requires_grad_(), c_norms.requires_grad_()
    c = torch.randn_like(g)
    value, norms, _ = gradient_penalty(g, *phi)
    (first,) = torch.autograd.grad(c_penalty * value + (c_norms * norms).sum(), g, create_graph=True)
    torch.testing.assert_close(first, gradient_penalty_backward(c_penalty, c_norms, g, norms, *phi))
    second = torch.autograd.grad(first, (c_penalty, c_norms, g), c)
    written = gradient_penalty_double_backward(c, c_penalty, c_norms, g, norms, *phi)
    for got, wanted in zip(written, second):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("phi", PHIS)
def test_a_zero_gradient_is_safe_to_second_order(phi):
    g = torch.zeros(3, 5, requires_grad=True)
    value, norms, seed = gradient_penalty(g, *phi)
    weight, target, one_sided = phi
    torch.testing.assert_close(value, torch.tensor(0.0 if one_sided else weight * target**2))
    assert torch.equal(seed, torch.zeros(3, 5))
    (first,) = torch.autograd.grad(value, g, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), g)
    assert torch.equal(first, torch.zeros(3, 5))
    curvature = 2 * weight / 3 if target == 0 else 0.0  # of w·n² it is 2w/B everywhere
    torch.testing.assert_close(second, torch.full((3, 5), curvature))
    _, _, written = gradient_penalty_double_backward(torch.ones(3, 5), torch.ones(()), None, g, norms, *phi)
    torch.testing.assert_close(written, second)
