"""pix2pix: Image-to-Image Translation with Conditional Adversarial Networks (Isola et al. 2017, arXiv:1611.07004)."""

from dataclasses import dataclass
from typing import Literal

import torch

from ganfast.data.columns import Images
from ganfast.models import cyclegan, unet
from ganfast.models.norms import Norm
from ganfast.objectives import discriminator_bce, generator_non_saturating
from ganfast.recipes.base import Player, Recipe, scores, share, spec_of
from ganfast.recipes.patches import check_patches


@dataclass(frozen=True, kw_only=True)
class Pix2Pix(Recipe):
    """A U-Net translates images, by pairs, and a discriminator of patches sees both sides (Isola et al. 2017).

    Pairs are files of equal names in --data and --data-b, or both sides in one picture with --layout ab. Dropout is the
    only noise, in training; afterwards an image has one translation.
    """

    name = "pix2pix"
    columns = {"x": Images(), "y": Images("targets")}
    judges = ("D",)
    telling = ("l1",)
    batch = 1
    choices = ()

    width: int = 64
    """features of the first layers"""
    layers: int = 3
    """layers of the discriminator; 3 is 70×70 pixels a patch"""
    norm: Norm = "batch"
    """BatchNorm, in evaluation of each image by itself, or InstanceNorm without scale and shift"""
    dropout: float = 0.5
    """rate in the decoder's first layers"""
    l1: float = 100.0
    """weight λ of the mean absolute error"""
    adversarial: float = 1.0
    """weight of the adversarial loss; 0 trains the U-Net alone"""
    direction: Literal["ab", "ba"] = "ab"
    """which side is given: that of --data, or the other one"""

    def __post_init__(self):
        super().__post_init__()
        check_patches(self)
        self.require(0 <= self.dropout < 1, "dropout", "lie in [0, 1)")
        for name in ("l1", "adversarial"):
            self.require(getattr(self, name) >= 0, name, "be 0 or more")
        self.require(self.l1 + self.adversarial > 0, "l1", "be above 0 where --adversarial is 0")

    @property
    def given(self):
        source = "x" if self.direction == "ab" else "y"
        return {source: self.columns[source]}

    @property
    def answer(self):
        return "y" if self.direction == "ab" else "x"

    def networks(self, data):
        (source,) = self.given
        inside, *size = spec_of(self, source, data).shape
        outside = data[self.answer].shape[0]
        check_patches(self, size)
        return {
            "G": unet.UNet(size, inside, outside, self.width, self.norm, self.dropout),
            "D": cyclegan.PatchDiscriminator(inside + outside, self.width, self.layers, self.norm),
        }

    def players(self):
        generator = Player(("G",), self.generator)
        return [Player(("D",), self.discriminator), generator] if self.adversarial else [generator]

    def pair(self, t):
        """(what is given, what it should become)."""
        return (t.x, t.y) if self.direction == "ab" else (t.y, t.x)

    def translate(self, t):
        t.asked, t.true = self.pair(t)
        t.fake = t.G(t.asked)

    def discriminator(self, t):
        self.translate(t)
        real, fake = scores(t.D, torch.cat([t.asked, t.true], 1), torch.cat([t.asked, t.fake.detach()], 1))
        t.log(accuracy_real=share(real > 0), accuracy_fake=share(fake < 0))
        return discriminator_bce(real, fake) / 2

    def generator(self, t):
        if not self.adversarial:
            self.translate(t)
        l1 = (t.fake - t.true).abs().mean()
        t.log(l1=l1)
        fooled = generator_non_saturating(t.D(torch.cat([t.asked, t.fake], 1))) if self.adversarial else 0.0
        return self.l1 * l1 + self.adversarial * fooled

    def sample(self, nets, z, given):
        return nets["G"](*given.values())
