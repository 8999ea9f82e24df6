"""PacGAN: The power of two samples in generative adversarial networks (Lin et al. 2018, arXiv:1712.04086)."""

from dataclasses import dataclass

from ganfast.models import architectures
from ganfast.recipes.original import OriginalGAN


@dataclass(frozen=True, kw_only=True)
class PacGAN(OriginalGAN):
    """The discriminator judges several samples at once, and so sees a lack of variety (Lin et al. 2018)."""

    name = "pacgan"

    packing: int = 2
    """samples that are judged together; --batch must be a multiple"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.packing >= 1, "packing", "be at least 1")

    def networks(self, data):
        shape, kind = data["x"].shape, self.architecture
        generator = architectures.generator(shape, self.latent_dim, self.width, kind)
        discriminator = architectures.discriminator(shape, self.width, kind, self.norm, self.packing)
        return {"G": generator, "D": architectures.Packed(discriminator, self.packing)}
