import pytest
import torch
from torch.nn import functional as F

from ganfast import objectives


@pytest.fixture
def logits():
    return [torch.randn(7, dtype=torch.float64, requires_grad=True) for _ in range(2)]


def test_discriminator_is_binary_cross_entropy(logits):
    real, fake = logits
    expected = F.binary_cross_entropy_with_logits(
        real, torch.full_like(real, 0.9)
    ) + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    torch.testing.assert_close(objectives.discriminator_bce(real, fake, 0.9), expected)


def test_generator_losses_by_their_formulas(logits):
    probability = logits[1].sigmoid()
    torch.testing.assert_close(objectives.generator_non_saturating(logits[1]), -probability.log().mean())
    torch.testing.assert_close(objectives.generator_minimax(logits[1]), (1 - probability).log().mean())


def test_minimax_saturates_where_the_other_does_not():
    sure = torch.tensor([-20.0], requires_grad=True)  # D is sure that it is fake
    gradients = [torch.autograd.grad(loss(sure), sure)[0].abs().item() for loss in objectives.LOSSES.values()]
    assert gradients[0] == pytest.approx(1, abs=1e-6) and gradients[1] < 1e-6


@pytest.mark.parametrize("loss", objectives.LOSSES.values())
def test_finite_at_extremes(loss):
    logits = torch.tensor([-1e4, 1e4, 0.0], requires_grad=True)
    value = loss(logits)
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all()


def test_wasserstein_and_relativistic_pairing_by_their_formulas(logits):
    real, fake = logits
    torch.testing.assert_close(objectives.wasserstein(real, fake), (real - fake).mean())
    torch.testing.assert_close(objectives.relativistic_pairing(real, fake), -(real - fake).sigmoid().log().mean())
