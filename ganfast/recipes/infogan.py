"""InfoGAN: Interpretable Representation Learning (Chen et al. 2016, arXiv:1606.03657)."""

from dataclasses import dataclass

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
    telling = ("cross_entropy", "code_error")

    latent_dim: int = 62
    """numbers in a latent vector, besides the codes"""
    categories: int = 10
    """values of the categorical code"""
    codes: int = 2
    """continuous codes, uniform in [-1, 1]"""
    width: int = 64
    """features at the largest resolution; they double with every halving, up to eight times"""
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
        self.require(self.lr_g > 0, "lr_g", "be above 0")

    @property
    def given(self):
        categories = tuple(map(str, range(self.categories)))
        return {"c": Spec("labels", (), categories), "u": Spec("attributes", (self.codes,))}

    def networks(self, data):
        channels, *size = data["x"].shape
        generator = dcgan.Generator(size, channels, self.latent_dim + self.codes + self.categories, self.width)
        features = dcgan.stage_widths(size, self.width)[0]
        return {
            "G": ConditionalGenerator(generator, self.categories),
            "D": infogan.Discriminator(size, channels, self.width),
            "Q": infogan.Recognition(features, self.categories, self.codes, kernel=dcgan.kernel(size)),
        }

    def players(self):
        return [
            Player(("D", "Q"), self.discriminator, name="d"),
            Player(("G",), self.generator, optimizer=self.adam(self.lr_g)),
        ]

    def discriminator(self, t):
        t.c, t.u = t.categorical(self.categories), t.uniform(self.codes) * 2 - 1
        t.fake = t.G(torch.cat([t.normal(self.latent_dim), t.u], 1), t.c)
        features = t.D.features(t.fake.detach())
        return discriminator_bce(t.D(t.x), t.D.head(features)) + self.information(t, features)

    def generator(self, t):
        features = t.D.features(t.fake)
        return generator_non_saturating(t.D.head(features)) + self.information(t, features)

    def information(self, t, features):
        """−λ·L_I of equation 5, up to constants: Q's Gaussians have standard deviation 1."""
        logits, means = t.Q(features)
        category, code = F.cross_entropy(logits, t.c), (means - t.u).square().sum(1).mean() / 2
        t.log(cross_entropy=category, code_error=code)
        return self.category_weight * category + self.code_weight * code

    def sample(self, nets, z, given):
        return nets["G"](torch.cat([z, given["u"]], 1), given["c"])

    def classify(self, nets, x):
        return nets["Q"](nets["D"].features(x))[0]
