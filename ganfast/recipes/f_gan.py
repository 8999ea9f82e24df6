"""f-GAN: Training Generative Neural Samplers using Variational Divergence Minimization (Nowozin et al. 2016)."""

from dataclasses import dataclass
from typing import Literal

from ganfast.objectives import DIVERGENCES, discriminator_f, generator_f_minimax, generator_f_non_saturating
from ganfast.recipes.base import Player, Recipe, scores, share
from ganfast.recipes.dcgan import DCGAN

LOSSES = {"non-saturating": generator_f_non_saturating, "minimax": generator_f_minimax}


@dataclass(frozen=True, kw_only=True)
class FGAN(Recipe):
    """A divergence of choice by its variational bound, on DCGAN's networks (Nowozin et al. 2016, arXiv:1606.00709)."""

    name = "f-gan"
    telling = ("divergence", "accuracy_real", "accuracy_fake")

    latent_dim: int = 100
    """numbers in a latent vector"""
    width: int = 64
    """features at the largest resolution; they double with every halving, up to eight times"""
    divergence: Literal[
        "kullback-leibler", "reverse-kl", "pearson-chi2", "squared-hellinger", "jensen-shannon", "gan"
    ] = "jensen-shannon"
    """of the data from the generator's distribution; the figure of this name is its bound"""
    loss: Literal["non-saturating", "minimax"] = "non-saturating"
    """the generator's loss: the alternative of the paper's section 3.2, or the bound itself"""
    d_steps: int = 1
    """critic updates for each generator update"""
    merge: bool = False
    """real and fake are one batch for the critic even where its layers mix samples, as BatchNorm does"""

    networks = DCGAN.networks

    def players(self):
        return [Player(("D",), self.critic, times=self.d_steps), Player(("G",), self.generator)]

    def critic(self, t):
        t.fake = t.G(t.normal(self.latent_dim))
        real, fake = scores(t.D, t.x, t.fake.detach(), self.merge)
        row = DIVERGENCES[self.divergence]
        loss = discriminator_f(row, real, fake)
        said_real, said_fake = row.activation(real) > row.threshold, row.activation(fake) < row.threshold
        t.log(divergence=-loss, accuracy_real=share(said_real), accuracy_fake=share(said_fake))
        return loss

    def generator(self, t):
        return LOSSES[self.loss](DIVERGENCES[self.divergence], t.D(t.fake))
