"""Generating Images with Recurrent Adversarial Networks (Im et al. 2016, arXiv:1602.05110)."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ganfast.data.columns import Images
from ganfast.models import dcgan, gran
from ganfast.recipes.original import OriginalGAN


@dataclass(frozen=True, kw_only=True)
class GRAN(OriginalGAN):
    """The generator draws on a canvas, step by step, and looks at what it drew last (Im et al. 2016)."""

    name = "gran"
    columns = {"x": Images()}
    architecture: ClassVar[str] = "dcgan"

    timesteps: int = 3
    """steps of the generator on its canvas; the paper has 1, 3 and 5"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.timesteps >= 1, "timesteps", "be at least 1")

    def networks(self, data):
        channels, *size = data["x"].shape
        generator = gran.Generator(size, channels, self.latent_dim, self.width, self.timesteps)
        return {"G": generator, "D": dcgan.Discriminator(size, channels, self.width, batch_norm=self.norm)}

    def strip(self, nets, z, given):
        return torch.stack(nets["G"].canvases(z))
