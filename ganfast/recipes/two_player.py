"""The game that most GANs play: a generator and a discriminator on images or points; its recipes name the losses."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ganfast.data.columns import Samples
from ganfast.models import architectures
from ganfast.nn import features_of
from ganfast.recipes.base import Player, Recipe, scores, share


@dataclass(frozen=True, kw_only=True)
class TwoPlayerGAN(Recipe):
    """G makes samples from latents, D scores real and fake ones."""

    columns = {"x": Samples()}
    judges = ("D",)
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
        generator = architectures.generator(shape, self.latent_dim, self.width, self.architecture)
        return {"G": generator, "D": architectures.discriminator(shape, self.width, self.architecture, self.norm)}

    def players(self):
        return self.pair()

    def pair(self, **of_d) -> list[Player]:
        """Both players; ``of_d``: further arguments of the discriminator's."""
        generator = self.match_features if self.remedies.feature_matching else self.generator
        return [Player(("D",), self.discriminator, times=self.d_steps, **of_d), Player(("G",), generator)]

    def discriminator(self, t):
        t.fake = t.G(t.normal(self.latent_dim))
        real, fake = scores(t.D, t.x, t.fake.detach(), self.merge)
        t.log(accuracy_real=share(real > self.threshold), accuracy_fake=share(fake < self.threshold))
        return self.loss_d(real, fake)

    def generator(self, t):
        return self.loss_g(t.D(t.fake))

    def match_features(self, t):
        """‖E f(x) − E f(G(z))‖², f the input of D's last layer (Salimans et al. 2016, section 3.1)."""
        with torch.no_grad():
            wanted = features_of(t.D, t.x)[1].flatten(1).mean(0)
        return (features_of(t.D, t.fake)[1].flatten(1).mean(0) - wanted).square().sum()

    def loss_d(self, real: Tensor, fake: Tensor) -> Tensor:
        """Of the discriminator, from its scores [B]."""
        raise NotImplementedError(f"{type(self).__name__} has no loss of the discriminator")

    def loss_g(self, fake: Tensor) -> Tensor:
        """Of the generator, from the scores [B] of its samples."""
        raise NotImplementedError(f"{type(self).__name__} has no loss of the generator")
