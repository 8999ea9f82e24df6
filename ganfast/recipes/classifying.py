"""Games whose discriminator is a classifier of K classes and has no output of its own for fake samples."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ganfast.data.columns import Images
from ganfast.models import architectures, mlp, noisy
from ganfast.recipes.base import one_shape
from ganfast.recipes.two_player import TwoPlayerGAN


@dataclass(frozen=True, kw_only=True)
class ClassifyingGAN(TwoPlayerGAN):
    """G makes samples from latents, D makes logits [B, K] of samples."""

    columns = {"x": Images()}
    averaged = ("G", "D")
    batch = 100
    merge: ClassVar[bool] = False  # no layer of D mixes samples

    architecture: Literal["mlp", "dcgan", "resnet"] = "mlp"
    """networks; mlp: with noise and weight normalisation, from 4 to 16 units a layer for each one of width"""

    def check_remedies(self):
        super().check_remedies()
        if self.architecture == "mlp":
            self.refuse_remedies("has weights that are normalised already", "spectral_norm")

    def networks(self, data):
        images, classes = one_shape(data, "x", "labelled" if "labelled" in data else "x"), self.classes(data)
        if self.architecture == "mlp":
            units = architectures.UNITS * self.width
            generator = noisy.Generator(images, self.latent_dim, 2 * units)
            return {"G": generator, "D": noisy.Classifier(images, classes, units)}
        generator = architectures.generator(images, self.latent_dim, self.width, self.architecture)
        classifier = architectures.encoder(images, classes, self.width, self.architecture, norm=False)
        mlp.kaiming(classifier)  # where all classes are alike, entropies have no gradient
        return {"G": generator, "D": classifier}

    def classes(self, data) -> int:
        """K."""
        return data["y"].classes

    def classify(self, nets, x):
        return nets["D"](x)
