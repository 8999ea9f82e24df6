"""What was lost, without learning: behind a blur whose width is known, in a hole."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ganfast.data.degradations import gaussian_blur


def richardson_lucy(images: Tensor, sigma: Tensor, radius: int, steps: int) -> Tensor:
    """What images [B, C, H, W] in [0, 1] were before ``gaussian_blur`` by σ [B] pixels, in [0, 1].

        u ← u · (k ∗ (d / (k ∗ u))),   u₀ = ½,   of the symmetric kernel k

    expectation-maximisation of the likelihood of photons (Richardson 1972; Lucy 1974), whose noise grows with the
    ``steps``; skimage.restoration.richardson_lucy but for borders, which are mirrors here.
    """
    found = torch.full_like(images, 0.5)
    for _ in range(steps):
        ratio = images / (gaussian_blur(found, sigma, radius) + 1e-12)
        found = found * gaussian_blur(ratio, sigma, radius)
    return found.clamp(0, 1)


def mean_filled(images: Tensor, mask: Tensor) -> Tensor:
    """images [B, C, H, W] with, where ``mask`` [B, 1, H, W] is 1, the mean colour of the rest, channel by channel."""
    known = 1 - mask
    mean = (images * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1)
    return torch.where(mask > 0, mean, images)


def diffused(images: Tensor, mask: Tensor, steps: int = 1000) -> Tensor:
    """images [B, C, H, W] with, where ``mask`` [B, 1, H, W] is 1, what flows in from around it: Laplace's equation.

    Jacobi's iteration from the mean colour: each pixel of the hole becomes the mean of its four neighbours.
    """
    found, channels = mean_filled(images, mask), images.shape[1]
    kernel = images.new_tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]]).div(4).expand(channels, 1, 3, 3)
    for _ in range(steps):
        around = F.conv2d(F.pad(found, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)
        found = torch.where(mask > 0, around, found)
    return found
