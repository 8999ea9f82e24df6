"""Context Encoders: Feature Learning by Inpainting (Pathak et al. 2016, arXiv:1604.07379)."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from ganfast.data.degradations import rectangles, square
from ganfast.data.restoration import diffused, mean_filled
from ganfast.models import context, dcgan
from ganfast.objectives import discriminator_bce, generator_non_saturating
from ganfast.recipes.base import Player, Recipe, share

HOLE = 1.0  # white, in pictures


@dataclass(frozen=True, kw_only=True)
class Inpaint(Recipe):
    """Fills a hole in a picture by what is around it (Pathak et al. 2016).

    The hole is the middle of the picture, or with --holes random the pixels that are white: rectangles in training,
    what somebody has painted white afterwards. Everything else stays as it is.
    """

    name = "inpaint"
    given = {"holed": lambda data: data["x"]}
    answer = "x"
    judges = ("D",)
    telling = ("l2",)

    width: int = 64
    """features at the largest resolution; they double with every halving, up to eight times"""
    code: int = 1000
    """numbers between encoder and decoder"""
    holes: Literal["center", "random"] = "center"
    """a square of half of both sides in the middle, or a rectangle of a quarter to half of them anywhere"""
    overlap: int = 4
    """pixels around the hole that count too, ten times as much, so that the filling joins what is there"""
    adversarial: float = 0.001
    """weight λ of the adversarial loss beside 1 − λ of the squared error"""
    lr: float = 2e-3
    """Adam's learning rate of the filler; the discriminator's is a tenth of it"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.code >= 1, "code", "be at least 1")
        self.require(self.overlap >= 0, "overlap", "be 0 or more")
        self.require(0 <= self.adversarial < 1, "adversarial", "lie in [0, 1)")

    def networks(self, data):
        channels, *size = data["x"].shape
        return {
            "G": context.ContextEncoder(size, channels, self.code, self.width),
            "D": dcgan.Discriminator(size, channels, self.width),
        }

    def players(self):
        filler = Player(("G",), self.filler)
        judge = Player(("D",), self.discriminator, optimizer=self.adam(self.lr / 10))
        return [judge, filler] if self.adversarial else [filler]

    def masks(self, x, drawn):
        """[B, 1, H, W] like x, 1 in holes, by uniform numbers [B, 4]."""
        size = x.shape[2:]
        return rectangles(drawn, *size) if self.holes == "random" else square(len(x), *size, device=x.device)

    def fill(self, t):
        t.mask = self.masks(t.x, t.uniform(4))
        t.made = t.G(torch.where(t.mask > 0, HOLE, t.x))
        t.filled = torch.where(t.mask > 0, t.made, t.x)

    def discriminator(self, t):
        self.fill(t)
        real, fake = t.D(t.x), t.D(t.filled.detach())
        t.log(accuracy_real=share(real > 0), accuracy_fake=share(fake < 0))
        return discriminator_bce(real, fake)

    def filler(self, t):
        if not self.adversarial:
            self.fill(t)
        around = F.max_pool2d(t.mask, 2 * self.overlap + 1, 1, self.overlap) - t.mask
        error = (t.made - t.x).square().mean(1, keepdim=True)
        t.log(l2=(t.mask * error).sum() / t.mask.sum())
        loss = (1 - self.adversarial) * ((t.mask + 10 * around) * error).sum() / (t.mask + around).sum()
        return loss + self.adversarial * generator_non_saturating(t.D(t.filled)) if self.adversarial else loss

    def sample(self, nets, z, given):
        x = given["holed"]
        mask = x.amin(1, keepdim=True) >= HOLE if self.holes == "random" else self.masks(x, None) > 0
        return torch.where(mask, nets["G"](torch.where(mask, HOLE, x)), x)

    def question(self, columns, random):
        x = columns["x"]
        mask = self.masks(x, torch.rand(len(x), 4, generator=random, device=x.device))
        return {"holed": torch.where(mask > 0, HOLE, x), "mask": mask}

    def trivial(self, given):
        of = given["holed"], given["mask"]
        return {"mean colour": mean_filled(*of), "diffusion": diffused(*of)}
