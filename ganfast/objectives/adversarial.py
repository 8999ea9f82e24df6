"""Losses of the two networks; those of Goodfellow et al. 2014 (arXiv:1406.2661) are of logits, finite for every one."""

from torch import Tensor

from ganfast.functional import sigmoid_bce


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
    """E[(D − target)²], a scalar: one side of least-squares GAN (Mao et al. 2017, arXiv:1611.04076)."""
    return (scores - target).square().mean()


def relativistic_pairing(better: Tensor, worse: Tensor) -> Tensor:
    """E[softplus(worse − better)], a scalar, over pairs of scores [B] (Jolicoeur-Martineau 2018, arXiv:1807.00734).

    The discriminator's has its scores of real as ``better`` and of fake as ``worse``; the generator's the other way.
    """
    return sigmoid_bce(better - worse, None, 1.0)


# the generator's side, by the name the command line gives it
LOSSES = {"non-saturating": generator_non_saturating, "minimax": generator_minimax}
