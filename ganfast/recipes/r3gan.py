"""A relativistic GAN with R1 and R2 after R3GAN (Huang et al. 2024, arXiv:2501.05441), on plain residual networks."""

from dataclasses import dataclass

import torch

from ganfast import penalty
from ganfast.errors import InputError
from ganfast.models import resnet
from ganfast.objectives import relativistic_pairing
from ganfast.recipes.base import Recipe


@dataclass(frozen=True, kw_only=True)
class R3GAN(Recipe):
    """Pairs of real and fake compared, R1 and R2 at every step, networks without normalisation (Huang et al. 2024)."""

    name = "r3gan"
    data_kind = "images"
    figures = ("accuracy_pairs", "penalty")

    latent_dim: int = 64
    """numbers in a latent vector"""
    width: int = 64
    """features of the widest picture; they double with every halving, up to eight times"""
    gamma: float = 0.1
    """γ of R1 and of R2: γ/2·E‖∇D‖², on real and on fake"""
    lr: float = 2e-4
    """Adam's step size, both networks"""
    beta1: float = 0.0
    """Adam's decay of the mean gradient"""
    beta2: float = 0.99
    """Adam's decay of the mean squared gradient"""

    def __post_init__(self):
        super().__post_init__()
        if not self.gamma >= 0:
            raise InputError(f"gamma must be 0 or more, got {self.gamma} (--gamma).")

    def networks(self, shape):
        channels, size, _ = shape
        generator = resnet.Generator(size, channels, self.latent_dim, self.width, norm="none")
        return generator, resnet.Discriminator(size, channels, self.width, norm="none")

    def discriminator_gradients(self, discriminator, real, fake, step):
        with step.autocast():
            real_scores, fake_scores = self.scores(discriminator, real, fake)
            r1 = penalty.r1(discriminator, real, self.gamma)
            r2 = penalty.r2(discriminator, fake, self.gamma)
            loss = relativistic_pairing(real_scores, fake_scores) + r1 + r2
        step.backward(loss)
        with torch.no_grad():
            return torch.stack([loss.float(), (real_scores > fake_scores).float().mean(), (r1 + r2).float()])

    def generator_loss(self, discriminator, fake, real):
        return relativistic_pairing(discriminator(fake), discriminator(real))  # apart: real needs no gradient
