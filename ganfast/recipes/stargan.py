"""StarGAN: Multi-Domain Image-to-Image Translation (Choi et al. 2018, arXiv:1711.09020)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ganfast import penalty
from ganfast.data.columns import Attributes, Images
from ganfast.models import stargan
from ganfast.recipes.base import Player, Recipe
from ganfast.recipes.patches import refuse_discrimination


@dataclass(frozen=True, kw_only=True)
class StarGAN(Recipe):
    """One generator gives an image any attributes; its discriminator finds attributes, too (Choi et al. 2018).

    An attribute is there where its number is above 0.
    """

    name = "stargan"
    columns = {"x": Images(), "y": Attributes()}
    given = {"x": Images(), "y": Attributes()}
    averaged = ("G", "D")
    judges = ("D",)
    telling = ("wasserstein", "cycle", "attributes_fake")
    lr_decay = "late-linear"
    batch = 16

    width: int = 64
    """features of the first layers"""
    blocks: int = 6
    """residual blocks of the generator"""
    attribute_weight: float = 1.0
    """weight λ_cls of the attributes' loss"""
    cycle: float = 10.0
    """weight λ_rec of the way there and back"""
    penalty_weight: float = 10.0
    """λ of the gradient penalty λ·E(‖∇D‖ − 1)²"""
    d_steps: int = 5
    """discriminator updates for each generator update"""
    lr: float = 1e-4
    """Adam's learning rate"""

    def __post_init__(self):
        super().__post_init__()
        refuse_discrimination(self)
        for name in ("attribute_weight", "cycle", "penalty_weight", "blocks"):
            self.require(getattr(self, name) >= 0, name, "be 0 or more")

    def networks(self, data):
        (channels, *size), (attributes,) = data["x"].shape, data["y"].shape
        return {
            "G": stargan.Generator(channels, attributes, self.width, self.blocks),
            "D": stargan.Discriminator(size, channels, attributes, self.width),
        }

    def players(self):
        return [Player(("D",), self.discriminator, times=self.d_steps), Player(("G",), self.generator)]

    def discriminator(self, t):
        t.wanted = self.others(t)
        t.fake, *t.masks = self.translate(t, t.x, t.wanted)
        fake = t.fake.detach().to(t.x.dtype)
        (real, found), (judged, _) = t.D(t.x), t.D(fake)
        pulled = penalty.gradient_penalty(t.D, t.x, fake, self.penalty_weight, eps=t.uniform())
        wasserstein, attributes = real.mean() - judged.mean(), self.of_attributes(found, t.y)
        t.log(wasserstein=wasserstein, attributes_real=attributes, penalty=pulled)
        return pulled - wasserstein + self.attribute_weight * attributes

    def generator(self, t):
        judged, found = t.D(t.fake)
        back, *masks = self.translate(t, t.fake, t.y)
        attributes, cycle = self.of_attributes(found, t.wanted), (back - t.x).abs().mean()
        t.log(attributes_fake=attributes, cycle=cycle)
        return self.attribute_weight * attributes + self.cycle * cycle + self.of_masks(t, masks) - judged.mean()

    def others(self, t):
        return t.mine(t.gather(t.y)[t.gather(t.uniform()).argsort()])

    def translate(self, t, x, y):
        """(x with the attributes y, masks where the generator has some)."""
        return (t.G(x, y),)

    def of_masks(self, t, masks):
        return 0.0

    def of_attributes(self, logits, y):
        """−log D_cls(y | x): cross-entropies of all attributes, the mean over samples of their sum."""
        return F.binary_cross_entropy_with_logits(logits, (y > 0).to(logits.dtype), reduction="sum") / len(y)

    def sample(self, nets, z, given):
        return nets["G"](given["x"], given["y"])

    def attributes(self, nets, x):
        return torch.sigmoid(nets["D"](x)[1])

    def question(self, columns, random):
        return {"x": columns["x"], "y": columns["y"].roll(1, 0)}
