"""The losses of Goodfellow et al. 2014 (arXiv:1406.2661), on logits, so that they stay finite wherever D is sure."""

from torch import Tensor

from ganfast.functional import sigmoid_bce


def discriminator_bce(real_logits: Tensor, fake_logits: Tensor, real_target: float = 1.0) -> Tensor:
    """−E[t·log σ(D(x)) + (1−t)·log(1−σ(D(x)))] − E[log(1−σ(D(G(z))))], a scalar.

    ``real_target`` t below 1 is one-sided label smoothing (Salimans et al. 2016, arXiv:1606.03498).
    """
    return sigmoid_bce(real_logits, fake_logits, real_target, 0.0)


def generator_non_saturating(fake_logits: Tensor) -> Tensor:
    """−E[log σ(D(G(z)))], a scalar: strong gradients while the discriminator wins."""
    return sigmoid_bce(fake_logits, None, 1.0)


def generator_minimax(fake_logits: Tensor) -> Tensor:
    """E[log(1 − σ(D(G(z))))], a scalar: the zero-sum game as written, whose gradient fades while D wins."""
    return -sigmoid_bce(None, fake_logits, fake_target=0.0)


# the generator's side, by the name the command line gives it
LOSSES = {"non-saturating": generator_non_saturating, "minimax": generator_minimax}
