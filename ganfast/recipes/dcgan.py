"""DCGAN: Unsupervised Representation Learning with Deep Convolutional GANs (Radford et al. 2015, arXiv:1511.06434)."""

from dataclasses import dataclass

from ganfast.models import dcgan
from ganfast.recipes.original import OriginalGAN


@dataclass(frozen=True, kw_only=True)
class DCGAN(OriginalGAN):
    """Strided convolutions with BatchNorm; images of 16…256 pixels a side, square or not (Radford et al. 2015)."""

    name = "dcgan"

    def networks(self, data):
        channels, *size = data["x"].shape
        generator = dcgan.Generator(size, channels, self.latent_dim, self.width)
        return {"G": generator, "D": dcgan.Discriminator(size, channels, self.width)}
