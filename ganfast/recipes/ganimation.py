"""GANimation: Anatomically-aware Facial Animation from a Single Image (Pumarola et al. 2018, arXiv:1807.09251)."""

from dataclasses import dataclass

import torch.nn.functional as F

from ganfast.models import ganimation, stargan
from ganfast.recipes.stargan import StarGAN


@dataclass(frozen=True, kw_only=True)
class GANimation(StarGAN):
    """Attributes have values in between, and a mask keeps what they do not change (Pumarola et al. 2018)."""

    name = "ganimation"
    between = True
    telling = ("wasserstein", "cycle", "mask")
    batch = 25

    attribute_weight: float = 30.0
    """weight λ_y of the attributes' mean squared errors, the paper's is 4000; too much makes noise that D reads"""
    mask_weight: float = 0.1
    """weight λ_A of the attention mask's mean and variation"""
    variation: float = 1e-4
    """weight λ_TV of the mask's squared differences between neighbours, over λ_A"""
    jitter: float = 0.1
    """uniform noise of up to this much on the attributes that are asked for"""

    def __post_init__(self):
        super().__post_init__()
        for name in ("mask_weight", "variation", "jitter"):
            self.require(getattr(self, name) >= 0, name, "be 0 or more")

    def networks(self, data):
        (channels, *size), (attributes,) = data["x"].shape, data["y"].shape
        return {
            "G": ganimation.Generator(channels, attributes, self.width, self.blocks),
            "D": stargan.Discriminator(size, channels, attributes, self.width),
        }

    def others(self, t):
        wanted = super().others(t)
        return wanted + self.jitter * (2 * t.uniform(wanted.shape[1]) - 1)

    def translate(self, t, x, y):
        return t.G(x, y, masks=True)

    def of_attributes(self, values, y):
        return F.mse_loss(values, y.to(values.dtype))

    def of_masks(self, t, masks):
        """λ_A·(mean + λ_TV·Σ squared differences of neighbours) of both masks; the mean where the paper has a norm."""
        masks = [*t.masks, *masks]
        mean = sum(mask.mean() for mask in masks)
        t.log(mask=mean / 2)
        variation = sum(mask.diff(dim=d).square().sum() / len(mask) for mask in masks for d in (2, 3))
        return self.mask_weight * (mean + self.variation * variation)

    def attributes(self, nets, x):
        return nets["D"](x)[1].clamp(0, 1)
