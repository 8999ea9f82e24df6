"""CoGAN: Coupled Generative Adversarial Networks (Liu and Tuzel 2016, arXiv:1606.07536)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from ganfast.data.columns import Images
from ganfast.models import cogan
from ganfast.recipes.base import one_shape, share
from ganfast.recipes.original import OriginalGAN


@dataclass(frozen=True, kw_only=True)
class CoGAN(OriginalGAN):
    """Pairs of images from two sets without pairs, by GANs that share layers (Liu et al. 2016).

    A latent vector gives an image of --data and one of --data-b. What only sharing couples is their meaning: each
    discriminator sees images of its own set alone, and batches of the two are drawn in different orders.
    """

    name = "cogan"
    columns = {"a": Images(), "b": Images(source=1)}
    match_features = None
    architecture: ClassVar[str] = "dcgan"
    merge: ClassVar[bool] = False

    own: int = 1
    """last layers of each generator that are not shared; the discriminators have their first one"""
    domain: Literal["a", "b"] = "a"
    """the one of each pair that is sampled and exported; both are saved"""

    def networks(self, data):
        channels, *size = one_shape(data)
        return {
            "G": cogan.Generators(size, channels, self.latent_dim, self.width, self.own),
            "D": cogan.Discriminators(size, channels, self.width),
        }

    def discriminator(self, t):
        t.pair = t.G(t.normal(self.latent_dim))
        real, fake = t.D(torch.cat([t.a, t.b])), t.D(torch.cat(t.pair).detach())
        t.log(accuracy_real=share(real > 0), accuracy_fake=share(fake < 0))
        return self.loss_d(real, fake)

    def generator(self, t):
        return self.loss_g(t.D(torch.cat(t.pair)))

    def sample(self, nets, z, given):
        return nets["G"](z)["ab".index(self.domain)]

    def pairs(self, nets, z):
        return nets["G"](z)

    def strip(self, nets, z, given):
        return torch.stack(self.pairs(nets, z))
