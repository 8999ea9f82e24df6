"""A relativistic GAN with R1 and R2 after R3GAN (Huang et al. 2024, arXiv:2501.05441), on plain residual networks."""

from dataclasses import dataclass
from typing import Literal

from ganfast import penalty
from ganfast.models import architectures
from ganfast.objectives import relativistic_pairing
from ganfast.recipes.base import scores, share
from ganfast.recipes.two_player import TwoPlayerGAN


@dataclass(frozen=True, kw_only=True)
class R3GAN(TwoPlayerGAN):
    """Pairs of real and fake compared, R1 and R2 at every step, networks without normalisation (Huang et al. 2024)."""

    name = "r3gan"
    telling = ("accuracy_pairs", "penalty")

    latent_dim: int = 64
    """numbers in a latent vector"""
    architecture: Literal["resnet", "mlp"] = "resnet"
    """networks for images; points have fully connected ones"""
    gamma: float = 1.0
    """γ of the penalties R1 on real and R2 on fake samples, γ/2·E‖∇D‖²; raise it where accuracy_pairs nears 1"""
    beta1: float = 0.0
    """Adam's decay rate of the first moment"""
    beta2: float = 0.99
    """Adam's decay rate of the second moment"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.gamma >= 0, "gamma", "be 0 or more")

    def networks(self, data):
        shape, (latents, width, kind) = data["x"].shape, (self.latent_dim, self.width, self.architecture)
        generator = architectures.generator(shape, latents, width, kind, norm=False)
        return {"G": generator, "D": architectures.discriminator(shape, width, kind, norm=False)}

    def discriminator(self, t):
        t.fake = t.G(t.normal(self.latent_dim))
        real, fake = scores(t.D, t.x, t.fake.detach(), self.merge)
        r1, r2 = penalty.r1(t.D, t.x, self.gamma), penalty.r2(t.D, t.fake.detach(), self.gamma)
        t.log(accuracy_pairs=share(real > fake), penalty=r1 + r2)
        return relativistic_pairing(real, fake) + r1 + r2

    def generator(self, t):
        return relativistic_pairing(t.D(t.fake), t.D(t.x))  # apart: real needs no gradient
