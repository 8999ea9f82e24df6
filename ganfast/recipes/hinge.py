"""SNGAN: the hinge loss under spectral normalisation (Miyato et al. 2018, arXiv:1802.05957)."""

from dataclasses import dataclass
from typing import Literal

from ganfast.objectives import discriminator_hinge, generator_hinge
from ganfast.recipes.remedies import Remedies
from ganfast.recipes.two_player import TwoPlayerGAN


@dataclass(frozen=True, kw_only=True)
class Hinge(TwoPlayerGAN):
    """The maximum margin, by a discriminator whose layers are 1-Lipschitz by spectral norm (Miyato et al. 2018)."""

    name = "hinge"
    norm = False

    latent_dim: int = 128
    """numbers in a latent vector"""
    architecture: Literal["dcgan", "resnet", "mlp"] = "resnet"
    """networks for images, the discriminator without normalisation layers; points have fully connected ones"""
    d_steps: int = 5
    """discriminator updates for each generator update"""
    beta1: float = 0.0
    """Adam's decay rate of the first moment"""
    beta2: float = 0.9
    """Adam's decay rate of the second moment"""
    remedies: Remedies = Remedies(spectral_norm=True)

    def loss_d(self, real, fake):
        return discriminator_hinge(real, fake)

    def loss_g(self, fake):
        return generator_hinge(fake)
