"""Conditional GAN (Mirza and Osindero 2014, arXiv:1411.1784) on DCGAN's networks."""

from dataclasses import dataclass
from typing import ClassVar

from ganfast.data.columns import Images, Labels
from ganfast.models import dcgan
from ganfast.models.conditional import ConditionalDiscriminator, ConditionalGenerator
from ganfast.recipes.base import share
from ganfast.recipes.original import OriginalGAN


@dataclass(frozen=True, kw_only=True)
class CGAN(OriginalGAN):
    """Both networks are given the class of a sample; DCGAN's networks on labelled images (Mirza et al. 2014)."""

    name = "cgan"
    columns = {"x": Images(), "y": Labels()}
    given = {"y": Labels()}
    match_features = None
    architecture: ClassVar[str] = "dcgan"

    def networks(self, data):
        (channels, *size), classes = data["x"].shape, data["y"].classes
        generator = dcgan.Generator(size, channels, self.latent_dim + classes, self.width)
        discriminator = dcgan.Discriminator(size, channels + classes, self.width)
        return {
            "G": ConditionalGenerator(generator, classes),
            "D": ConditionalDiscriminator(discriminator, classes),
        }

    def discriminator(self, t):
        t.fake = t.G(t.normal(self.latent_dim), t.y)
        real, fake = t.D(t.x, t.y), t.D(t.fake.detach(), t.y)
        t.log(accuracy_real=share(real > 0), accuracy_fake=share(fake < 0))
        return self.loss_d(real, fake)

    def generator(self, t):
        return self.loss_g(t.D(t.fake, t.y))

    def sample(self, nets, z, given):
        return nets["G"](z, given["y"])
