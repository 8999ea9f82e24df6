"""LAPGAN: Deep Generative Image Models using a Laplacian Pyramid of Adversarial Networks (Denton et al. 2015)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from ganfast.data.columns import Images
from ganfast.models import lapgan
from ganfast.models.pyramid import gaussian
from ganfast.recipes.base import scores, share
from ganfast.recipes.original import OriginalGAN


@dataclass(frozen=True, kw_only=True)
class LAPGAN(OriginalGAN):
    """A GAN of 8 pixels, and one of residuals for each doubling (Denton et al. 2015, arXiv:1506.05751).

    All levels train on the same batch, each alone as in the paper: they share no weights, a residual generator sees
    the low-pass of real images, and Adam's steps of one are the same whatever is added to its loss by the others.
    """

    name = "lapgan"
    columns = {"x": Images()}
    judges = ()
    match_features = None
    architecture: ClassVar[str] = "dcgan"

    detail: int = 8
    """numbers of a latent vector for each doubling, which make its plane of noise; the coarsest has the others"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.detail >= 1, "detail", "be at least 1")

    def networks(self, data):
        channels, *size = data["x"].shape
        return {
            "G": lapgan.Generator(size, channels, self.latent_dim, self.detail, self.width),
            "D": lapgan.Discriminators(size, channels, self.width, self.norm),
        }

    def discriminator(self, t):
        reals = gaussian(t.x, len(t.D.levels) - 1)
        t.fakes = t.G(t.normal(self.latent_dim), reals)
        found = [scores(d, real, fake.detach(), self.merge) for d, real, fake in zip(t.D.levels, reals, t.fakes)]
        real, fake = (torch.cat(each) for each in zip(*found))
        t.log(accuracy_real=share(real > 0), accuracy_fake=share(fake < 0))
        return sum(self.loss_d(real, fake) for real, fake in found)

    def generator(self, t):
        return sum(self.loss_g(d(fake)) for d, fake in zip(t.D.levels, t.fakes))

    def sample(self, nets, z, given):
        return nets["G"](z)[-1].clamp(-1, 1)

    def strip(self, nets, z, given):
        steps = nets["G"](z)
        return torch.stack([F.interpolate(step, steps[-1].shape[2:]) for step in steps]).clamp(-1, 1)
