"""CUT: Contrastive Learning for Unpaired Image-to-Image Translation (Park et al. 2020, arXiv:2007.15651)."""

from dataclasses import dataclass

import torch

from ganfast.models import cut
from ganfast.objectives import discriminator_least_squares, least_squares, patch_nce
from ganfast.recipes.base import Player, one_shape, scores
from ganfast.recipes.unpaired import Unpaired


@dataclass(frozen=True, kw_only=True)
class CUT(Unpaired):
    """One generator translates --data to --data-b, and each place stays recognisable (Park et al. 2020).

    What its encoder sees at a place of the output is to be like what it sees at that place of the input, and unlike
    other places of it, by the heads H. Losses of maps and places are means; keys get no gradients.
    """

    name = "cut"
    given = {"a": Unpaired.columns["a"]}
    answer = "b"
    judges = ("D",)
    telling = ("contrast",)

    nce: float = 1.0
    """weight λ_X of the contrastive loss of translations"""
    identity: float = 1.0
    """weight λ_Y of that of what the generator makes of images b; 0 leaves it out"""
    equivariance: bool = False
    """half of what the generator is given is flipped, and its maps are flipped back before they are compared"""
    antialias: bool = False
    """the generator blurs before it subsamples and interpolates on the way up, as the authors' code"""
    places: int = 256
    """places of an image that are compared, of each map"""
    temperature: float = 0.07
    """temperature τ of the contrastive loss"""
    units: int = 256
    """units of the two layers of a head"""

    def __post_init__(self):
        super().__post_init__()
        for name in ("nce", "temperature"):
            self.require(getattr(self, name) > 0, name, "be above 0")
        self.require(self.identity >= 0, "identity", "be 0 or more")
        self.require(self.places >= 2, "places", "be at least 2")
        self.require(self.units >= 1, "units", "be at least 1")

    def networks(self, data):
        channels = one_shape(data)[0]
        generator = cut.Generator(channels, channels, self.width, self.blocks, self.antialias)
        return {"G": generator, "D": self.patches(data), "H": cut.Heads(generator.widths, self.units)}

    def players(self):
        return [Player(("D",), self.discriminator), Player(("G", "H"), self.generator, name="g")]

    def discriminator(self, t):
        t.x = torch.cat([t.a, t.b]) if self.identity else t.a
        t.flipped = t.uniform(1, 1, 1).repeat(len(t.x) // len(t.a), 1, 1, 1) < 0.5 if self.equivariance else None
        t.made = t.G(self.flip(t, t.x), maps=True)
        real, fake = scores(t.D, t.b, t.made[0][: len(t.a)].detach())
        return discriminator_least_squares(real, fake)

    def generator(self, t):
        made, maps = t.made
        places = [self.draw(t, each).repeat(len(made) // len(t.a), 1) for each in maps]
        with torch.no_grad():
            keys = t.H(t.G(t.x, encode=True) if self.equivariance else maps, places)
        queries = t.H([self.flip(t, each) for each in t.G(made, encode=True)], places)
        losses = sum(patch_nce(*pair, self.temperature) for pair in zip(queries, keys)) / len(maps)
        contrast, *identity = (each.mean() for each in losses.split(len(t.a)))
        loss = least_squares(t.D(made[: len(t.a)]), 1.0) + self.nce * contrast
        t.log(contrast=contrast)
        if identity:
            t.log(identity=identity[0])
            loss = loss + self.identity * identity[0]
        return loss

    def flip(self, t, images):
        """``images``, those left to right that the turn says."""
        return torch.where(t.flipped, images.flip(3), images) if self.equivariance else images

    def draw(self, t, maps):
        """int64 [B, S]: different places of each map [B, C, H, W], all of them where there are no more than S."""
        numbers = t.uniform(maps.shape[2] * maps.shape[3])
        return numbers.topk(min(self.places, numbers.shape[1])).indices

    def sample(self, nets, z, given):
        return nets["G"](given["a"])
