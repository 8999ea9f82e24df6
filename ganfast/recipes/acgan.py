"""AC-GAN: Conditional Image Synthesis with Auxiliary Classifier GANs (Odena et al. 2017, arXiv:1610.09585)."""

from dataclasses import dataclass
from typing import ClassVar

from ganfast.models import conditional, dcgan
from ganfast.recipes.cgan import CGAN


@dataclass(frozen=True, kw_only=True)
class ACGAN(CGAN):
    """D finds the class of a sample besides whether it is real; G is given it, and helps D find it (Odena et al. 2017).

    D maximises L_S + L_C, G maximises L_C − L_S, each with weight 1: L_S is the log-likelihood of the source, L_C that
    of the class, both of real and of generated samples.
    """

    name = "acgan"
    averaged = ("G", "D")
    batch = 100
    conditioning: ClassVar[str] = "aux"
    architecture: ClassVar[str] = "dcgan"

    dropout: float = 0.5
    """rate at which the discriminator's features are dropped out"""

    def __post_init__(self):
        super().__post_init__()
        self.require(0 <= self.dropout < 1, "dropout", "lie in [0, 1)")

    def networks(self, data):
        (channels, *size), classes = data["x"].shape, data["y"].classes
        generator = conditional.generator(data["x"].shape, self.latent_dim, classes, self.width, "dcgan")
        trunk = dcgan.Discriminator(size, channels, self.width, outputs=1 + classes, dropout=self.dropout)
        return {"G": generator, "D": conditional.AuxiliaryDiscriminator(trunk)}

    def classify(self, nets, x):
        return nets["D"](x)[1]
