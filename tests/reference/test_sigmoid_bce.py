"""The reference against torch's own cross-entropy, and its derivatives against autograd."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from ganfast import reference
from ganfast.reference.sigmoid_bce import sigmoid_bce_backward, sigmoid_bce_double_backward


def logits(*shape, scale=3.0):
    return (scale * torch.randn(*shape, dtype=torch.float64)).requires_grad_()


@pytest.mark.parametrize("targets", [(1.0, 0.0), (0.9, 0.0), (0.7, 0.2)])
def test_equals_torch_and_has_its_derivatives(targets):
    real, fake = logits(5, 3), logits(7)
    torch_loss = F.binary_cross_entropy_with_logits(real, torch.full_like(real, targets[0]))
    torch_loss = torch_loss + F.binary_cross_entropy_with_logits(fake, torch.full_like(fake, targets[1]))
    torch.testing.assert_close(reference.sigmoid_bce(real, fake, *targets), torch_loss, rtol=1e-12, atol=0)

    def loss(r, f):
        return reference.sigmoid_bce(r, f, *targets)

    assert gradcheck(loss, (real, fake))
    assert gradgradcheck(loss, (real, fake))


@pytest.mark.parametrize("sides", ["both", "real", "fake"])
def test_written_derivatives_are_those_of_autograd(sides):
    real = logits(6) if sides != "fake" else None
    fake = logits(4) if sides != "real" else None
    present = [x for x in (real, fake) if x is not None]
    g = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    loss = reference.sigmoid_bce(real, fake, 0.9, 0.1)
    wanted = torch.autograd.grad(loss, present, g, create_graph=True)
    got = [d for d in sigmoid_bce_backward(g, real, fake, 0.9, 0.1) if d is not None]
    torch.testing.assert_close(got, list(wanted), rtol=1e-12, atol=1e-15)

    cotangents = [torch.randn_like(x) for x in present]
    wanted = torch.autograd.grad(wanted, [g, *present], cotangents)
    given = iter(cotangents)
    c = [None if x is None else next(given) for x in (real, fake)]
    got = [d for d in sigmoid_bce_double_backward(*c, g, real, fake, 0.9, 0.1) if d is not None]
    torch.testing.assert_close([d.detach() for d in got], list(wanted), rtol=1e-12, atol=1e-15)


def test_at_zero_the_gradient_is_a_half_minus_the_target():
    x = torch.zeros(4, requires_grad=True)
    reference.sigmoid_bce(x, None, 0.9).backward()
    torch.testing.assert_close(x.grad, torch.full((4,), (0.5 - 0.9) / 4))
