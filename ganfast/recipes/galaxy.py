"""GalaxyGAN: deconvolution of galaxies beyond the limit (Schawinski et al. 2017, arXiv:1702.00403)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from ganfast.data.columns import Images
from ganfast.data.degradations import gaussian_blur
from ganfast.data.restoration import richardson_lucy
from ganfast.recipes.pix2pix import Pix2Pix

FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, over its standard deviation


@dataclass(frozen=True, kw_only=True)
class GalaxyGAN(Pix2Pix):
    """pix2pix makes blurred and noisy pictures of galaxies sharp again (Schawinski et al. 2017).

    Pairs are made of --data while it trains: a picture is an asinh stretch of the flux in [0, 1], which is blurred by a
    Gaussian and gets noise; both are drawn anew for each picture.
    """

    name = "galaxy"
    columns = {"x": Images()}
    given = {"blurred": lambda data: data["x"]}
    answer = "x"
    direction: ClassVar[str] = "ab"

    fwhm_min: float = 2.0
    """full width at half maximum of the blur, in pixels: the least"""
    fwhm_max: float = 4.0
    """and the most"""
    noise_min: float = 0.01
    """standard deviation of the noise, in shares of the largest flux: the least"""
    noise_max: float = 0.05
    """and the most"""
    stretch: float = 10.0
    """a of the stretch asinh(a·flux)/asinh(a) that makes pictures of flux; 0: pictures are flux"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.fwhm_min > 0, "fwhm_min", "be above 0")
        self.require(self.noise_min >= 0, "noise_min", "be 0 or more")
        self.require(self.stretch >= 0, "stretch", "be 0 or more")
        for what in ("fwhm", "noise"):
            least = getattr(self, f"{what}_min")
            self.require(getattr(self, f"{what}_max") >= least, f"{what}_max", f"be at least --{what}-min, {least}")

    def flux(self, x):
        """[0, 1] of pictures in [−1, 1]."""
        v = (x + 1) / 2
        return torch.sinh(v * math.asinh(self.stretch)) / self.stretch if self.stretch else v

    def picture(self, flux):
        """The way back; flux outside [0, 1] is cut off."""
        flux = flux.clamp(0, 1)
        v = torch.asinh(flux * self.stretch) / math.asinh(self.stretch) if self.stretch else flux
        return v * 2 - 1

    @property
    def radius(self) -> int:
        """Pixels from the middle of the widest blur to where it ends."""
        return math.ceil(3 * self.fwhm_max / FWHM)

    def degraded(self, x, drawn, noise):
        """(blurred and noisy pictures, σ [B] of the blur) by uniform [B, 2] and normal numbers like x."""
        sigma = (self.fwhm_min + (self.fwhm_max - self.fwhm_min) * drawn[:, 0]) / FWHM
        level = self.noise_min + (self.noise_max - self.noise_min) * drawn[:, 1]
        blurred = gaussian_blur(self.flux(x), sigma, self.radius)
        return self.picture(blurred + level.view(-1, 1, 1, 1) * noise), sigma

    def pair(self, t):
        return self.degraded(t.x, t.uniform(2), t.normal(*t.x.shape[1:]))[0], t.x

    def question(self, columns, random):
        x = columns["x"]
        drawn = torch.rand(len(x), 2, generator=random, device=x.device)
        noise = torch.randn(x.shape, generator=random, device=x.device)
        return dict(zip(("blurred", "sigma"), self.degraded(x, drawn, noise)))

    def trivial(self, given):
        flux = self.flux(given["blurred"])
        found = {n: richardson_lucy(flux, given["sigma"], self.radius, n) for n in (3, 10, 30)}
        return super().trivial(given) | {f"richardson-lucy-{n}": self.picture(each) for n, each in found.items()}
