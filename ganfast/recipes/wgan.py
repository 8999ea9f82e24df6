"""WGAN: Wasserstein GAN (Arjovsky, Chintala and Bottou 2017, arXiv:1701.07875)."""

from dataclasses import dataclass

from ganfast.objectives import wasserstein
from ganfast.recipes.base import scores
from ganfast.recipes.two_player import TwoPlayerGAN


@dataclass(frozen=True, kw_only=True)
class WGAN(TwoPlayerGAN):
    """The Wasserstein distance by a critic with clipped weights, on DCGAN's networks (Arjovsky et al. 2017)."""

    name = "wgan"
    telling = ("score_real", "score_fake")

    clip: float = 0.01
    """the critic's weights are clipped to [-clip, clip] after each of its updates"""
    d_steps: int = 5
    """critic updates for each generator update"""
    lr: float = 5e-5
    """Adam's learning rate"""
    beta1: float = 0.0
    """Adam's decay rate of the first moment; 0 is RMSProp, which the paper uses because momentum made it unstable"""
    beta2: float = 0.99
    """Adam's decay rate of the second moment"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.clip > 0, "clip", "be above 0")

    def players(self):
        return self.pair(after=self.clamp)

    def discriminator(self, t):
        t.fake = t.G(t.normal(self.latent_dim))
        real, fake = scores(t.D, t.x, t.fake.detach(), self.merge)
        t.log(score_real=real.mean(), score_fake=fake.mean())
        return -wasserstein(real, fake)

    def clamp(self, t):
        for parameter in t.D.parameters():
            parameter.clamp_(-self.clip, self.clip)

    def loss_g(self, fake):
        return -fake.mean()
