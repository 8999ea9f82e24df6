"""Entropies of predictions against hand-computed values, and where exp() under- or overflows."""

import math

import pytest
import torch

from ganfast.objectives import conditional_entropy, marginal_entropy

BOTH = (conditional_entropy, marginal_entropy)


def test_sure_and_even_sure_and_uneven_unsure():
    even = torch.eye(4) * 1e4  # each row is sure of another class
    assert conditional_entropy(even) == 0 and marginal_entropy(even).item() == pytest.approx(math.log(4))
    assert conditional_entropy(even[:1]) == marginal_entropy(even[:1].expand(3, 4)) == 0
    unsure = torch.full((5, 4), -1e4)
    for entropy in BOTH:
        assert entropy(unsure).item() == pytest.approx(math.log(4))


def test_by_hand():
    """p = (3/4, 1/4) and (1/4, 3/4): H is log 4 − 3/4·log 3 of each, log 2 of their mean."""
    p = torch.tensor([[0.75, 0.25], [0.25, 0.75]], dtype=torch.float64)
    assert conditional_entropy(p.log()).item() == pytest.approx(math.log(4) - 0.75 * math.log(3))
    assert marginal_entropy(p.log() + 7).item() == pytest.approx(math.log(2))  # a constant changes nothing


@pytest.mark.parametrize("entropy", BOTH)
def test_differentiable_twice_and_finite_everywhere(entropy):
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(entropy, logits) and torch.autograd.gradgradcheck(entropy, logits)
    for scale in (1e-4, 1.0, 1e4):
        far = (torch.randn(8, 5) * scale).requires_grad_()
        loss = entropy(far)
        assert 0 <= loss.item() <= math.log(5) + 1e-5
        assert torch.autograd.grad(loss, far)[0].isfinite().all()
    assert entropy(torch.zeros(2, 3, dtype=torch.bfloat16)).dtype == torch.float32
