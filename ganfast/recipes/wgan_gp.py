"""WGAN-GP: Improved Training of Wasserstein GANs (Gulrajani et al. 2017, arXiv:1704.00028)."""

from dataclasses import dataclass
from typing import Literal

from ganfast import penalty
from ganfast.models import dcgan, resnet
from ganfast.recipes.base import Player, Recipe


@dataclass(frozen=True, kw_only=True)
class WGANGP(Recipe):
    """A gradient penalty pulls the critic's gradient norm to 1 between real and fake (Gulrajani et al. 2017)."""

    name = "wgan-gp"
    telling = ("wasserstein", "gradient_norm")

    architecture: Literal["dcgan", "resnet"] = "dcgan"
    """DCGAN's networks, the critic without BatchNorm; or the paper's residual ones, the critic with LayerNorm"""
    latent_dim: int = 128
    """numbers in a latent vector"""
    width: int = 64
    """features at the largest resolution; they double with every halving, up to eight times"""
    penalty_weight: float = 10.0
    """λ of the gradient penalty λ·E(‖∇D‖ − 1)²"""
    d_steps: int = 5
    """critic updates for each generator update"""
    lr: float = 1e-4
    """Adam's learning rate"""
    beta1: float = 0.0
    """Adam's decay rate of the first moment"""
    beta2: float = 0.9
    """Adam's decay rate of the second moment"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.penalty_weight >= 0, "penalty_weight", "be 0 or more")

    def networks(self, data):
        channels, *size = data["x"].shape
        if self.architecture == "resnet":
            generator = resnet.Generator(size, channels, self.latent_dim, self.width)
            return {"G": generator, "D": resnet.Discriminator(size, channels, self.width)}
        generator = dcgan.Generator(size, channels, self.latent_dim, self.width)
        return {"G": generator, "D": dcgan.Discriminator(size, channels, self.width, batch_norm=False)}

    def players(self):
        return [Player(("D",), self.critic, times=self.d_steps, own_gradients=True), Player(("G",), self.generator)]

    def critic(self, t):
        t.fake = t.G(t.normal(self.latent_dim))
        fake, eps = t.fake.detach().to(t.x.dtype), t.uniform()  # half precision makes half fakes
        found = penalty.wgan_gp_step(t.D, t.x, fake, self.penalty_weight, eps=eps, scale=t.scale)
        t.log(wasserstein=found.wasserstein, gradient_norm=found.gradient_norm)
        return found.loss

    def generator(self, t):
        return -t.D(t.fake).mean()
