"""DCGAN: Unsupervised Representation Learning with Deep Convolutional GANs (Radford et al. 2015, arXiv:1511.06434)."""

from dataclasses import dataclass

from ganfast.models import dcgan
from ganfast.recipes.base import OriginalGAN


@dataclass(frozen=True, kw_only=True)
class DCGAN(OriginalGAN):
    """Strided convolutions with BatchNorm; images of 16…256 pixels a side (Radford et al. 2015)."""

    name = "dcgan"
    data_kind = "images"

    latent_dim: int = 100
    """numbers in a latent vector"""
    width: int = 64
    """features of the widest picture; they double with every halving, up to eight times"""

    def networks(self, shape):
        channels, size, _ = shape
        generator = dcgan.Generator(size, channels, self.latent_dim, self.width)
        return generator, dcgan.Discriminator(size, channels, self.width)
