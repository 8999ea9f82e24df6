"""InfoGAN: Interpretable Representation Learning (Chen et al. 2016, arXiv:1606.03657)."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from ganfast.data.columns import Spec
from ganfast.models import dcgan, infogan
from ganfast.models.conditional import ConditionalGenerator
from ganfast.objectives import discriminator_bce, generator_non_saturating
from ganfast.recipes.base import Player, Recipe


@dataclass(frozen=True, kw_only=True)
class InfoGAN(Recipe):
    """A third network Q finds a category and continuous codes again in the samples made of them (Chen et al. 2016)."""

    name = "infogan"
    averaged = ("G", "D", "Q")
    judges = ("D",)
    telling = ("cross_entropy", "code_error")

    latent_dim: int = 62
    """numbers in a latent vector, besides the codes"""
    latent_std: float = 1.0
    """standard deviation of the latents in the generator; where it is small the codes decide what a sample is"""
    categories: int = 10
    """values of the categorical code"""
    codes: int = 2
    """continuous codes, uniform in [-1, 1]"""
    architecture: Literal["paper", "dcgan"] = "paper"
    """networks: those of the paper's MNIST, two convolutions and two fully connected layers, or DCGAN's"""
    width: int = 64
    """features at the largest resolution; fully connected layers have 16 times as many units"""
    category_weight: float = 1.0
    """weight of the categorical code's information"""
    code_weight: float = 0.1
    """weight of the continuous codes' information"""
    lr_g: float = 1e-3
    """Adam's learning rate of the generator; --lr is the discriminator's"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.categories >= 2, "categories", "be at least 2")
        self.require(self.codes >= 0, "codes", "be 0 or more")
        self.require(self.latent_std > 0, "latent_std", "be above 0")
        self.require(self.lr_g > 0, "lr_g", "be above 0")

    @property
    def given(self):
        categories = tuple(map(str, range(self.categories)))
        return {"c": Spec("labels", (), categories), "u": Spec("attributes", (self.codes,))}

    def networks(self, data):
        channels, *size = data["x"].shape
        inputs = self.latent_dim + self.codes + self.categories
        make = dcgan.Generator if self.architecture == "dcgan" else infogan.Generator
        D = infogan.Discriminator(size, channels, self.width, self.architecture)
        head = D.last.conv
        return {
            "G": ConditionalGenerator(make(size, channels, inputs, self.width), self.categories),
            "D": D,
            "Q": infogan.Recognition(head.in_channels, self.categories, self.codes, kernel=head.kernel_size),
        }

    def players(self):
        return [
            Player(("D", "Q"), self.discriminator, name="d"),
            Player(("G",), self.generator, optimizer=self.adam(self.lr_g)),
        ]

    def discriminator(self, t):
        t.c, t.u = t.categorical(self.categories), t.uniform(self.codes) * 2 - 1
        t.fake = self.sample(vars(t), t.normal(self.latent_dim), {"c": t.c, "u": t.u})
        fake, features = t.D(t.fake.detach(), features=True)
        return discriminator_bce(t.D(t.x), fake) + self.information(t, features)

    def generator(self, t):
        fake, features = t.D(t.fake, features=True)
        return generator_non_saturating(fake) + self.information(t, features)

    def information(self, t, features):
        """−λ·L_I of equation 5, up to constants: Q's Gaussians have standard deviation 1."""
        logits, means = t.Q(features)
        category, code = F.cross_entropy(logits, t.c), (means - t.u).square().sum(1).mean() / 2
        t.log(cross_entropy=category, code_error=code)
        return self.category_weight * category + self.code_weight * code

    def sample(self, nets, z, given):
        return nets["G"](torch.cat([self.latent_std * z, given["u"]], 1), given["c"])

    def classify(self, nets, x):
        return nets["Q"](nets["D"](x, features=True)[1])[0]
