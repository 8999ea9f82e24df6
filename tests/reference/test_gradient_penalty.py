"""The penalty's parts against loops, and against the mistakes other implementations make."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ganfast import reference


def test_interpolation_has_one_epsilon_per_sample():
    real, fake = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    epsilon = torch.tensor([0.0, 0.25, 1.0])
    out = reference.interpolate(real, fake, epsilon)
    for i, e in enumerate(epsilon.tolist()):
        torch.testing.assert_close(out[i], e * real[i] + (1 - e) * fake[i])


def test_norms_are_per_sample_over_every_other_dimension():
    g = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    norms = reference.sample_norms(g)
    for i in range(4):
        assert abs(float(norms[i]) - sum(float(v) ** 2 for v in g[i].flatten()) ** 0.5) < 1e-12
    assert not torch.allclose(norms.mean(), g.norm())  # over the whole batch: another number
    assert not torch.allclose(norms, g.norm(dim=1).mean((1, 2)))  # per pixel: another


def test_norms_of_half_gradients_do_not_overflow():
    g = torch.full((2, 1000), 100.0, dtype=torch.float16)  # Σ g² = 1e7 > 65504
    torch.testing.assert_close(reference.sample_norms(g), torch.full((2,), 1e7**0.5))


@pytest.mark.parametrize("kind", reference.gradient_penalty.KINDS)
def test_penalty_and_seed(kind):
    g = torch.randn(4, 2, 3, dtype=torch.float64)
    g[0] *= 0.05  # a norm below one
    terms = []
    for sample in g:
        n = float(sample.norm())
        terms.append(
            {"two_sided": 7 * (n - 1) ** 2, "one_sided": 7 * max(0, n - 1) ** 2, "zero_centered": 3.5 * n**2}[kind]
        )
    value, seed = reference.penalty_seed(g, 7.0, kind)
    assert abs(float(value) - sum(terms) / 4) < 1e-12

    leaf = g.clone().requires_grad_()
    assert gradcheck(lambda x: reference.penalty(x, 7.0, kind), (leaf,))
    assert gradgradcheck(lambda x: reference.penalty(x, 7.0, kind), (leaf,))
    torch.testing.assert_close(seed, torch.autograd.grad(reference.penalty(leaf, 7.0, kind), leaf)[0])
    if kind == "one_sided":
        assert torch.equal(seed[0], torch.zeros_like(seed[0]))


@pytest.mark.parametrize("kind", reference.gradient_penalty.KINDS)
def test_a_zero_gradient_is_safe_to_second_order(kind):
    g = torch.zeros(3, 5, requires_grad=True)
    value, seed = reference.penalty_seed(g, 10.0, kind)
    assert float(value) == (10.0 if kind == "two_sided" else 0.0)
    assert torch.equal(seed, torch.zeros(3, 5))
    (first,) = torch.autograd.grad(reference.penalty(g, 10.0, kind), g, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), g)
    assert bool(second.isfinite().all())


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match=r"kind: got 'r3', needs one of two_sided, one_sided, zero_centered"):
        reference.penalty(torch.ones(2, 2), 10.0, "r3")
