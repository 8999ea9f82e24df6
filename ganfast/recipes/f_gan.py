"""f-GAN: Training Generative Neural Samplers using Variational Divergence Minimization (Nowozin et al. 2016)."""

from dataclasses import dataclass
from typing import Literal

from ganfast.objectives import DIVERGENCES, discriminator_f, generator_f_minimax, generator_f_non_saturating
from ganfast.recipes.base import scores, share
from ganfast.recipes.two_player import TwoPlayerGAN

LOSSES = {"non-saturating": generator_f_non_saturating, "minimax": generator_f_minimax}


@dataclass(frozen=True, kw_only=True)
class FGAN(TwoPlayerGAN):
    """A divergence of choice by its variational bound (Nowozin et al. 2016, arXiv:1606.00709)."""

    name = "f-gan"
    telling = ("divergence", "accuracy_real", "accuracy_fake")

    divergence: Literal[
        "kullback-leibler", "reverse-kl", "pearson-chi2", "squared-hellinger", "jensen-shannon", "gan"
    ] = "jensen-shannon"
    """of the data from the generator's distribution; the figure of this name is its bound"""
    loss: Literal["non-saturating", "minimax"] = "non-saturating"
    """the generator's loss: the alternative of the paper's section 3.2, or the bound itself"""

    @property
    def threshold(self):
        """The v with g_f(v) = f'(1)."""
        return 1.0 if self.divergence == "kullback-leibler" else 0.0

    def discriminator(self, t):
        t.fake = t.G(t.normal(self.latent_dim))
        real, fake = scores(t.D, t.x, t.fake.detach(), self.merge)
        row = DIVERGENCES[self.divergence]
        loss = discriminator_f(row, real, fake)
        said_real, said_fake = row.activation(real) > row.threshold, row.activation(fake) < row.threshold
        t.log(divergence=-loss, accuracy_real=share(said_real), accuracy_fake=share(said_fake))
        return loss

    def loss_g(self, fake):
        return LOSSES[self.loss](DIVERGENCES[self.divergence], fake)
