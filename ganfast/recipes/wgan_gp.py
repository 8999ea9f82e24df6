"""WGAN-GP: Improved Training of Wasserstein GANs (Gulrajani et al. 2017, arXiv:1704.00028)."""

from dataclasses import dataclass
from typing import ClassVar

from ganfast import penalty
from ganfast.recipes.two_player import TwoPlayerGAN


@dataclass(frozen=True, kw_only=True)
class WGANGP(TwoPlayerGAN):
    """A gradient penalty pulls the critic's gradient norm to 1 between real and fake (Gulrajani et al. 2017)."""

    name = "wgan-gp"
    telling = ("wasserstein", "gradient_norm")
    merge: ClassVar[bool] = False

    latent_dim: int = 128
    """numbers in a latent vector"""
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

    @property
    def norm(self):
        return self.architecture == "resnet"  # LayerNorm: BatchNorm would mix samples

    def players(self):
        return self.pair(own_gradients=True)

    def discriminator(self, t):
        t.fake = t.G(t.normal(self.latent_dim))
        fake, eps = t.fake.detach().to(t.x.dtype), t.uniform()  # half precision makes half fakes
        found = penalty.wgan_gp_step(t.D, t.x, fake, self.penalty_weight, eps=eps, scale=t.scale)
        t.log(wasserstein=found.wasserstein, gradient_norm=found.gradient_norm)
        return found.loss

    def loss_g(self, fake):
        return -fake.mean()
