"""Point spread functions: what a telescope makes of a point, blurring by it, and Richardson-Lucy's way back."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, over its σ


def radius_of(fwhm: float) -> int:
    """Pixels from the middle of a Gaussian to where it ends, three σ away."""
    return math.ceil(3 * fwhm / FWHM)


def gaussians(fwhm: Tensor, radius: int) -> Tensor:
    """[B, K, K], K = 2·radius + 1, each of sum 1, of full widths at half maximum [B] in pixels."""
    at = torch.arange(-radius, radius + 1, device=fwhm.device, dtype=fwhm.dtype)
    lines = torch.exp(-0.5 * (at * FWHM / fwhm[:, None]).square())
    lines = lines / lines.sum(1, keepdim=True)
    return lines[:, :, None] * lines[:, None, :]


def convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """images [B, C, H, W], each with its own of kernels [B, K, K], K odd; around an image all is zero."""
    batch, channels, height, width = images.shape
    each = kernels.flip(1, 2)[:, None].repeat_interleave(channels, 0)  # conv2d correlates
    planes = images.reshape(1, batch * channels, height, width)
    return F.conv2d(planes, each, padding=kernels.shape[1] // 2, groups=batch * channels).view_as(images)


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """``convolve`` of images that go on beyond their borders as in a mirror."""
    r = kernels.shape[1] // 2
    return convolve(F.pad(images, (r, r, r, r), mode="reflect"), kernels)[:, :, r:-r, r:-r]


def richardson_lucy(images: Tensor, kernels: Tensor, steps: int) -> Tensor:
    """What images [B, C, H, W] in [0, 1] were before ``blur``, in [0, 1] (Richardson 1972; Lucy 1974).

        u ← u · (k̃ ∗ (d / (k ∗ u))),   u₀ = ½

    the maximum likelihood of photons by expectation-maximisation; noise grows with the ``steps``. That of
    skimage.restoration.richardson_lucy, on images with a mirror around them.
    """
    r = kernels.shape[1] // 2
    seen = F.pad(images, (r, r, r, r), mode="reflect")
    found = torch.full_like(seen, 0.5)
    for _ in range(steps):
        found = found * convolve(seen / (convolve(found, kernels) + 1e-12), kernels.flip(1, 2))
    return found.clamp(0, 1)[:, :, r:-r, r:-r]
