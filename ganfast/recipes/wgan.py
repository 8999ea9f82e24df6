"""WGAN: Wasserstein GAN (Arjovsky, Chintala and Bottou 2017, arXiv:1701.07875)."""

from dataclasses import dataclass

import torch

from ganfast.errors import InputError
from ganfast.models import dcgan
from ganfast.objectives import wasserstein
from ganfast.recipes.base import Recipe


@dataclass(frozen=True, kw_only=True)
class WGAN(Recipe):
    """The earth mover's distance by a critic with clipped weights, on DCGAN's networks (Arjovsky et al. 2017)."""

    name = "wgan"
    data_kind = "images"
    figures = ("score_real", "score_fake")

    latent_dim: int = 100
    """numbers in a latent vector"""
    width: int = 64
    """features of the widest picture; they double with every halving, up to eight times"""
    clip: float = 0.01
    """the critic's weights are kept in [-clip, clip]"""
    merge: bool = False
    """real and fake are one batch for the discriminator even where its layers mix samples, as BatchNorm does"""
    d_steps: int = 5
    """critic updates for each generator update"""
    lr: float = 5e-5
    """Adam's step size, both networks"""
    beta1: float = 0.0
    """Adam's decay of the mean gradient; 0 is RMSProp, which the paper uses because momentum made it unstable"""
    beta2: float = 0.99
    """Adam's decay of the mean squared gradient"""

    def __post_init__(self):
        super().__post_init__()
        if not self.clip > 0:
            raise InputError(f"clip must be above 0, got {self.clip} (--clip).")

    def networks(self, shape):
        channels, size, _ = shape
        generator = dcgan.Generator(size, channels, self.latent_dim, self.width)
        return generator, dcgan.Discriminator(size, channels, self.width)

    def discriminator_gradients(self, discriminator, real, fake, step):
        with step.autocast():
            real_scores, fake_scores = self.scores(discriminator, real, fake, self.merge)
            loss = -wasserstein(real_scores, fake_scores)
        step.backward(loss)
        return torch.stack([loss.detach(), real_scores.detach().mean(), fake_scores.detach().mean()]).float()

    @torch.no_grad()
    def constrain(self, discriminator):
        for parameter in discriminator.parameters():
            parameter.clamp_(-self.clip, self.clip)

    def generator_loss(self, discriminator, fake, real):
        return -discriminator(fake).mean()
