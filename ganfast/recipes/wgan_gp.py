"""WGAN-GP: Improved Training of Wasserstein GANs (Gulrajani et al. 2017, arXiv:1704.00028)."""

from dataclasses import dataclass
from typing import Literal

import torch

from ganfast import penalty
from ganfast.errors import InputError
from ganfast.models import dcgan, resnet
from ganfast.recipes.base import Recipe


@dataclass(frozen=True, kw_only=True)
class WGANGP(Recipe):
    """A critic whose gradient is drawn to norm 1 between real and fake (Gulrajani et al. 2017)."""

    name = "wgan-gp"
    data_kind = "images"
    figures = ("wasserstein", "gradient_norm")

    architecture: Literal["dcgan", "resnet"] = "dcgan"
    """DCGAN's networks, the critic without BatchNorm; or the paper's residual ones, the critic with LayerNorm"""
    latent_dim: int = 128
    """numbers in a latent vector"""
    width: int = 64
    """features of the widest picture; they double with every halving, up to eight times"""
    penalty_weight: float = 10.0
    """λ of the gradient penalty"""
    d_steps: int = 5
    """critic updates for each generator update"""
    lr: float = 1e-4
    """Adam's step size, both networks"""
    beta1: float = 0.0
    """Adam's decay of the mean gradient"""
    beta2: float = 0.9
    """Adam's decay of the mean squared gradient"""

    def __post_init__(self):
        super().__post_init__()
        if not self.penalty_weight >= 0:
            raise InputError(f"penalty_weight must be 0 or more, got {self.penalty_weight} (--penalty-weight).")

    def networks(self, shape):
        channels, size, _ = shape
        if self.architecture == "resnet":
            generator = resnet.Generator(size, channels, self.latent_dim, self.width)
            return generator, resnet.Discriminator(size, channels, self.width)
        generator = dcgan.Generator(size, channels, self.latent_dim, self.width)
        return generator, dcgan.Discriminator(size, channels, self.width, batch_norm=False)

    def discriminator_gradients(self, discriminator, real, fake, step):
        fake, eps = fake.to(real.dtype), step.uniform(len(real))  # half precision makes half fakes
        with step.autocast():
            found = penalty.wgan_gp_step(discriminator, real, fake, self.penalty_weight, eps=eps, scale=step.scale)
        return torch.stack([found.loss, found.wasserstein, found.gradient_norm])

    def generator_loss(self, discriminator, fake, real):
        return -discriminator(fake).mean()
