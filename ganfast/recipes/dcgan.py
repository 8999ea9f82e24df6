"""DCGAN: Unsupervised Representation Learning with Deep Convolutional GANs (Radford et al. 2015, arXiv:1511.06434)."""

from dataclasses import dataclass

from ganfast.data.columns import Images
from ganfast.recipes.original import OriginalGAN


@dataclass(frozen=True, kw_only=True)
class DCGAN(OriginalGAN):
    """Strided convolutions with BatchNorm; images of 16…256 pixels a side, square or not (Radford et al. 2015)."""

    name = "dcgan"
    columns = {"x": Images()}
