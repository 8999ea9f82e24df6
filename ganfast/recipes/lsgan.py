"""Least Squares Generative Adversarial Networks (Mao et al. 2017, arXiv:1611.04076)."""

from dataclasses import dataclass

from ganfast.objectives import discriminator_least_squares, generator_least_squares
from ganfast.recipes.two_player import TwoPlayerGAN


@dataclass(frozen=True, kw_only=True)
class LSGAN(TwoPlayerGAN):
    """Squares in place of logarithms, which pull samples towards the boundary (Mao et al. 2017)."""

    name = "lsgan"

    a: float = 0.0
    """the discriminator's target for fake samples"""
    b: float = 1.0
    """its target for real ones"""
    c: float = 1.0
    """what the generator wants its samples to score; (−1, 1, 0) minimises Pearson's χ²"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.a < self.b, "a", "be below b")

    @property
    def threshold(self):
        return (self.a + self.b) / 2

    def loss_d(self, real, fake):
        return discriminator_least_squares(real, fake, self.a, self.b)

    def loss_g(self, fake):
        return generator_least_squares(fake, self.c)
