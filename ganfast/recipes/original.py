"""The game of Generative Adversarial Nets (Goodfellow et al. 2014, arXiv:1406.2661) with logits."""

from dataclasses import dataclass
from typing import Literal

from ganfast.objectives import LOSSES, discriminator_bce
from ganfast.recipes.base import Player, Recipe, scores, share


@dataclass(frozen=True, kw_only=True)
class OriginalGAN(Recipe):
    """The original game; its recipes only name their networks."""

    telling = ("accuracy_real", "accuracy_fake")

    latent_dim: int = 100
    """numbers in a latent vector"""
    width: int = 64
    """features at the largest resolution; they double with every halving, up to eight times"""
    d_steps: int = 1
    """discriminator updates for each generator update"""
    loss: Literal["non-saturating", "minimax"] = "non-saturating"
    """the generator's loss"""
    real_target: float = 1.0
    """the discriminator's target for real samples; 0.9 is one-sided label smoothing"""
    merge: bool = False
    """real and fake are one batch for the discriminator even where its layers mix samples, as BatchNorm does"""

    def __post_init__(self):
        super().__post_init__()
        self.require(0 <= self.real_target <= 1, "real_target", "lie in [0, 1]")

    def players(self):
        return [Player(("D",), self.discriminator, times=self.d_steps), Player(("G",), self.generator)]

    def discriminator(self, t):
        t.fake = t.G(t.normal(self.latent_dim))
        real, fake = scores(t.D, t.x, t.fake.detach(), self.merge)
        t.log(accuracy_real=share(real > 0), accuracy_fake=share(fake < 0))
        return discriminator_bce(real, fake, self.real_target)

    def generator(self, t):
        return LOSSES[self.loss](t.D(t.fake))
