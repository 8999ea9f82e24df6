"""The game that most GANs play: a generator and a discriminator on images or points; its recipes name the losses."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ganfast.data.columns import Samples
from ganfast.models import unconditional
from ganfast.recipes.base import Player, Recipe, scores, share


@dataclass(frozen=True, kw_only=True)
class TwoPlayerGAN(Recipe):
    """G makes samples from latents, D scores real and fake ones."""

    columns = {"x": Samples()}
    telling = ("accuracy_real", "accuracy_fake")
    norm: ClassVar[bool] = True
    """D has normalisation layers"""
    threshold: ClassVar[float] = 0.0
    """D takes a sample with a score above it for a real one"""

    latent_dim: int = 100
    """numbers in a latent vector"""
    width: int = 64
    """features at the largest resolution, doubled with every halving up to eight times; of points four units each"""
    architecture: Literal["dcgan", "resnet", "mlp"] = "dcgan"
    """networks for images; points have fully connected ones"""
    d_steps: int = 1
    """discriminator updates for each generator update"""
    merge: bool = False
    """real and fake are one batch for the discriminator even where its layers mix samples, as BatchNorm does"""

    def networks(self, data):
        shape = data["x"].shape
        generator = unconditional.generator(shape, self.latent_dim, self.width, self.architecture)
        return {"G": generator, "D": unconditional.discriminator(shape, self.width, self.architecture, self.norm)}

    def players(self):
        return [Player(("D",), self.discriminator, times=self.d_steps), Player(("G",), self.generator)]

    def discriminator(self, t):
        t.fake = t.G(t.normal(self.latent_dim))
        real, fake = scores(t.D, t.x, t.fake.detach(), self.merge)
        t.log(accuracy_real=share(real > self.threshold), accuracy_fake=share(fake < self.threshold))
        return self.loss_d(real, fake)

    def generator(self, t):
        return self.loss_g(t.D(t.fake))

    def loss_d(self, real: Tensor, fake: Tensor) -> Tensor:
        """Of the discriminator, from its scores [B]."""
        raise NotImplementedError(f"{type(self).__name__} has no loss of the discriminator")

    def loss_g(self, fake: Tensor) -> Tensor:
        """Of the generator, from the scores [B] of its samples."""
        raise NotImplementedError(f"{type(self).__name__} has no loss of the generator")
