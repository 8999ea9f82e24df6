"""What takes information from images: smaller sizes, blur, noise, masks.

Functions of tensors on one device, the same for the same arguments: what is drawn at random is given to them. No shape
and no branch depends on a value, so a CUDA graph may hold them, and all but the masks are differentiable.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ganfast.errors import InputError


def downscale(x: Tensor, factor: int) -> Tensor:
    """x [B, C, H, W] at 1/factor of its sides: bicubic, a = −1/2, over factor times as many pixels (antialiased).

    What super-resolution is given, and MATLAB's imresize makes. Values may leave [−1, 1] a little beside edges.
    InputError where a side is no multiple of ``factor``.
    """
    height, width = x.shape[-2:]
    if factor < 1 or height % factor or width % factor:
        raise InputError(f"factor must divide both sides of {width}×{height} pixels, got {factor}.")
    return F.interpolate(x, (height // factor, width // factor), mode="bicubic", antialias=True)


def upscale(x: Tensor, factor: int) -> Tensor:
    """x [B, C, H, W] at factor times its sides: bicubic, a = −1/2, as ``downscale``."""
    height, width = x.shape[-2:]
    return F.interpolate(x, (height * factor, width * factor), mode="bicubic", antialias=True)


def gaussian_blur(x: Tensor, sigma: float | Tensor, radius: int | None = None) -> Tensor:
    """x [B, C, H, W] convolved with a Gaussian of the standard deviation ``sigma`` in pixels, reflected at borders.

    Args:
        sigma: above 0; one number, or a tensor [B] of one for each image.
        radius: pixels to each side that the kernel reaches, fewer than those of a side; 3σ, rounded up, by default,
            and needed where σ is a tensor, whose values stay on the device.
    """
    if radius is None:
        if isinstance(sigma, Tensor):
            raise InputError("radius must be given where sigma is a tensor: three times the largest, rounded up.")
        radius = math.ceil(3 * sigma)
    batch, channels, height, width = x.shape
    if radius >= min(height, width):
        raise InputError(f"a blur of radius {radius} needs images of more pixels than {width}×{height}.")
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(batch)
    steps = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.softmax(-(steps**2) / (2 * sigma[:, None] ** 2), 1)  # [B, 2·radius + 1], of sum 1
    kernel = kernel.repeat_interleave(channels, 0)[:, None]
    padded = F.pad(x, (radius,) * 4, mode="reflect")
    rows = padded.reshape(1, batch * channels, *padded.shape[2:])  # an image's plane is a group
    blurred = F.conv2d(rows, kernel[:, :, None], groups=batch * channels)
    return F.conv2d(blurred, kernel[..., None], groups=batch * channels).view(batch, channels, height, width)


def add_noise(x: Tensor, noise: Tensor, sigma: float | Tensor) -> Tensor:
    """x [B, C, H, W] + σ·noise, within [−1, 1]; ``noise`` ~ N(0, 1) like x, σ one number or [B]."""
    if isinstance(sigma, Tensor):
        sigma = sigma.view(-1, 1, 1, 1)
    return (x + sigma * noise).clamp(-1, 1)


def rectangles(u: Tensor, height: int, width: int, least: float = 0.25, most: float = 0.5) -> Tensor:
    """Masks [B, 1, height, width] of 0 and, in one rectangle each, 1, from uniform numbers ``u`` [B, 4] in [0, 1).

    A rectangle's sides are ``least`` to ``most`` of the image's, at least a pixel, and it lies inside, anywhere.
    """
    high, top = _span(u[:, 0], u[:, 1], height, least, most)
    wide, left = _span(u[:, 2], u[:, 3], width, least, most)
    down, across = (torch.arange(side, device=u.device) for side in (height, width))
    rows = (down >= top) & (down < top + high)
    columns = (across >= left) & (across < left + wide)
    return (rows[:, :, None] & columns[:, None, :])[:, None].to(u.dtype)


def _span(u: Tensor, v: Tensor, side: int, least: float, most: float) -> tuple[Tensor, Tensor]:
    """Lengths and first pixels, each [B, 1]: whole numbers, all that are possible alike."""
    low, high = max(round(least * side), 1), max(round(most * side), 1)
    length = (low + u * (high - low + 1)).floor().clamp(max=high)
    start = (v * (side - length + 1)).floor().minimum(side - length)
    return length[:, None], start[:, None]


def square(batch: int, height: int, width: int, share: float = 0.5, device: torch.device | None = None) -> Tensor:
    """Masks [B, 1, height, width] of 0 and, in a rectangle in the middle of ``share`` of both sides, 1."""
    high, wide = round(share * height), round(share * width)
    top, left = (height - high) // 2, (width - wide) // 2
    mask = torch.zeros(batch, 1, height, width, device=device)
    mask[:, :, top : top + high, left : left + wide] = 1
    return mask
