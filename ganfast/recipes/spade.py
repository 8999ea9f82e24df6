"""SPADE: Semantic Image Synthesis with Spatially-Adaptive Normalization (Park et al. 2019, arXiv:1903.07291)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ganfast.data.columns import Images, Maps
from ganfast.data.options import size_word
from ganfast.models import spade, vgg
from ganfast.nn import spectral_norm
from ganfast.objectives import discriminator_hinge, generator_hinge
from ganfast.recipes.base import Player, Recipe


@dataclass(frozen=True, kw_only=True)
class SPADE(Recipe):
    """Pictures of label maps, --data PICTURES --data-b MAPS, which modulate each normalisation (Park et al. 2019).

    Against patch discriminators of two scales by the hinge loss, with their features matched, and those of VGG16 where
    --vgg names its weights. All layers have spectral norm; the discriminators' learning rate is four times --lr.
    """

    name = "spade"
    columns = {"x": Images(), "m": Maps()}
    given = {"m": columns["m"]}
    answer = "x"
    telling = ("matching",)
    batch = 16

    noise: int = 256
    """numbers in a latent vector, where the generator begins; 0: with the map, and one picture of each"""
    width: int = 64
    """features at the largest resolution, and of the discriminators' first layers"""
    layers: int = 3
    """layers of a patch discriminator"""
    scales: int = 2
    """discriminators, each at half the size of the one before"""
    matching: float = 10.0
    """weight λ of the loss of features, of the discriminators' and of VGG16's"""
    vgg: str = ""
    """weights of VGG16 up to conv4_1, whose features are compared, too"""
    lr: float = 1e-4
    """Adam's learning rate of the generator"""
    beta1: float = 0.0
    """Adam's decay rate of the first moment"""

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("noise", 0), ("layers", 1), ("scales", 1)):
            self.require(getattr(self, name) >= least, name, f"be at least {least}")

    @property
    def latent_dim(self):
        return self.noise

    def networks(self, data):
        (channels, *size), classes = data["x"].shape, data["m"].classes
        most = (min(size) // 3 >> (self.scales - 1)).bit_length() - 1
        self.require(self.layers <= most, "layers", f"be at most {most} for images of {size_word(*size)} pixels")
        generator = spade.Generator(size, classes, channels, self.width, self.noise)
        discriminators = spade.Discriminators(channels, classes, self.width, self.layers, self.scales)
        found = {"G": spectral_norm(generator), "D": spectral_norm(discriminators)}
        return found | ({"V": vgg.Maps()} if self.vgg else {})

    def begin(self, networks):
        if "V" in networks:
            networks["V"].load(self.vgg)

    def players(self):
        return [Player(("D",), self.discriminator, self.adam(4 * self.lr)), Player(("G",), self.generator)]

    def discriminator(self, t):
        t.fake = t.G(t.m, t.normal(self.noise) if self.noise else None)
        pairs = zip(t.D(t.x, t.m), t.D(t.fake.detach(), t.m))
        return sum(discriminator_hinge(real[-1], fake[-1]) for real, fake in pairs) / self.scales

    def generator(self, t):
        with torch.no_grad():
            wanted = t.D(t.x, t.m)
        found = t.D(t.fake, t.m)
        matching = sum(nearness(own[:-1], real[:-1]) for own, real in zip(found, wanted)) / self.scales
        t.log(matching=matching)
        if self.vgg:
            perceptual = vgg.SCALE * nearness(t.V(t.fake), t.V(t.x))
            t.log(perceptual=perceptual)
            matching = matching + perceptual
        return sum(generator_hinge(own[-1]) for own in found) / self.scales + self.matching * matching

    def sample(self, nets, z, given):
        return nets["G"](given["m"], z)

    def trivial(self, given):
        return {}


def nearness(own, wanted):
    """The sum over layers of the mean absolute difference of their activations."""
    return sum(F.l1_loss(a, b) for a, b in zip(own, wanted))
