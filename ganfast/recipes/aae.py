"""Adversarial Autoencoders (Makhzani et al. 2015, arXiv:1511.05644)."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from ganfast.data.columns import Labels, Samples
from ganfast.models import architectures, mlp
from ganfast.models.conditional import one_hot
from ganfast.models.priors import PRIORS
from ganfast.objectives import discriminator_bce, generator_non_saturating
from ganfast.recipes.base import Player, Recipe, share


@dataclass(frozen=True, kw_only=True)
class AAE(Recipe):
    """An autoencoder whose codes a discriminator cannot tell from draws of a prior (Makhzani et al. 2015)."""

    name = "aae"
    averaged = ("E", "G")
    telling = ("accuracy_prior", "accuracy_code")

    prior: Literal["gaussian", "mixture", "swiss-roll"] = "gaussian"
    """distribution of the codes; the last two lie in the plane"""
    latent_dim: int | None = None
    """numbers in a code; by default 8 of the Gaussian prior, 2 of the others"""
    supervised: bool = False
    """the discriminator sees the label, and the class k belongs to the k-th mode of the prior"""
    modes: int = 10
    """Gaussians of the mixture, pieces of the roll; with --supervised one for each class"""
    width: int = 250
    """fully connected layers have four times as many units; of images features at the largest resolution"""
    architecture: Literal["dcgan", "resnet", "mlp"] = "mlp"
    """encoder and decoder; the discriminator of codes is fully connected"""
    lr: float = 5e-4
    """Adam's learning rate"""

    def __post_init__(self):
        plane = self.prior in ("mixture", "swiss-roll")
        if self.latent_dim is None:
            object.__setattr__(self, "latent_dim", 2 if plane else 8)
        super().__post_init__()
        self.require(not plane or self.latent_dim == 2, "latent_dim", f"be 2 with --prior {self.prior}")
        self.require(not self.supervised or plane, "prior", "be mixture or swiss-roll with --supervised")
        self.require(self.modes >= 2, "modes", "be at least 2")

    @property
    def columns(self):
        return {"x": Samples(), "y": Labels()} if self.supervised else {"x": Samples()}

    @property
    def given(self):
        return {"y": Labels()} if self.supervised else {}

    def networks(self, data):
        shape, labels = data["x"].shape, self.modes if self.supervised else 0
        classes = data["y"].classes if self.supervised else self.modes
        self.require(self.modes == classes, "modes", f"be the number of classes, {classes}, with --supervised")
        return {
            "E": architectures.encoder(shape, self.latent_dim, self.width, self.architecture),
            "G": architectures.generator(shape, self.latent_dim, self.width, self.architecture),
            "D": mlp.Encoder(self.latent_dim + labels, 1, architectures.UNITS * self.width, batch_norm=False),
        }

    def players(self):
        return [
            Player(("E", "G"), lambda t: F.mse_loss(t.G(t.E(t.x)), t.x), name="reconstruction"),
            Player(("D",), self.discriminator),
            Player(("E",), self.regularization),
        ]

    def discriminator(self, t):
        t.code = t.E(t.x)
        drawn = self.code_of(t.normal(self.latent_dim), t.y if self.supervised else None)
        real, fake = self.score(t, drawn), self.score(t, t.code.detach())
        t.log(accuracy_prior=share(real > 0), accuracy_code=share(fake < 0))
        return discriminator_bce(real, fake)

    def regularization(self, t):
        return generator_non_saturating(self.score(t, t.code))

    def score(self, t, code):
        """D's logits [B] of codes, with their labels where it is supervised (section 2.3)."""
        label = [one_hot(t.y, self.modes).to(code.dtype)] if self.supervised else []
        return t.D(torch.cat([code, *label], 1)).flatten()

    def code_of(self, z, y=None):
        return PRIORS[self.prior](z, self.modes, y)

    def sample(self, nets, z, given):
        return nets["G"](self.code_of(z, given.get("y")))

    def encode(self, nets, x):
        return nets["E"](x)

    def decode(self, nets, code):
        return nets["G"](code)
