"""The residual networks of WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028, appendix F)."""

from itertools import pairwise
from math import prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganfast.errors import InputError
from ganfast.models.dcgan import MAX_MULTIPLE, kernel, stage_widths
from ganfast.models.sizes import Size, compact

NORMS = {"batch": nn.BatchNorm2d, "layer": lambda features: nn.GroupNorm(1, features), "none": nn.Identity}


def norm_of(norm: str, features: int) -> nn.Module:
    if norm not in NORMS:
        raise InputError(f"norm must be {' or '.join(NORMS)}, got {norm!r}.")
    return NORMS[norm](features)


class ResidualBlock(nn.Module):
    """x [B, in, H, W] → shortcut(x) + conv(relu(norm(conv(relu(norm(x)))))), [B, out, H', W'], convolutions of 3×3.

    ``resample`` "up" doubles H and W (nearest) before the first convolution, "down" halves them (mean) after the
    second. The shortcut is resampled likewise, and has a 1×1 convolution where the number of features changes.
    """

    def __init__(self, in_features: int, out_features: int, resample: Literal["up", "down"], norm: str):
        super().__init__()
        between = min(in_features, out_features) if resample == "down" else out_features
        self.resample = resample
        self.norm1, self.norm2 = norm_of(norm, in_features), norm_of(norm, between)
        self.conv1 = nn.Conv2d(in_features, between, 3, padding=1)
        self.conv2 = nn.Conv2d(between, out_features, 3, padding=1)
        self.shortcut = nn.Conv2d(in_features, out_features, 1) if in_features != out_features else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x))
        if self.resample == "up":
            x, h = F.interpolate(x, scale_factor=2.0), F.interpolate(h, scale_factor=2.0)
        h = self.conv2(F.relu(self.norm2(self.conv1(h))))
        if self.resample == "down":
            x, h = F.avg_pool2d(x, 2), F.avg_pool2d(h, 2)
        return self.shortcut(x) + h


def initialize(module: nn.Module, norm: str) -> None:
    """In place: He's normal in blocks, Glorot's elsewhere, biases 0; without norms a block starts as its shortcut."""
    for name, layer in module.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            if name.endswith(("conv1", "conv2")):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            else:
                nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
            if norm == "none" and name.endswith("conv2"):
                nn.init.zeros_(layer.weight)


def features(size: Size, width: int) -> list[int]:
    """Features where the shorter side is 4, 8, … and the picture's: one stage more than ``stage_widths``."""
    doublings = len(stage_widths(size, width))
    return [width * min(2 ** (doublings - i), MAX_MULTIPLE) for i in range(doublings + 1)]


class Generator(nn.Module):
    """z [B, latent_dim] ~ N(0, 1) → images [B, channels, H, W] in [−1, 1]: residual blocks that double the sides.

    A tanh ends it where there are norms. Without them it would saturate in one colour and learn no more: the last
    convolution's result is the image then, cut to the range in evaluation only.
    ``size`` is (H, W), or one number for both. Raises ``InputError`` as ``dcgan.Generator`` does.
    """

    def __init__(
        self, size: Size = 64, channels: int = 3, latent_dim: int = 128, width: int = 64, norm: str = "batch"
    ):  # fmt: skip
        super().__init__()
        self.config = {
            "size": compact(size),
            "channels": channels,
            "latent_dim": latent_dim,
            "width": width,
            "norm": norm,
        }
        self.latent_dim = latent_dim
        widths = features(size, width)
        self.pixels = kernel(size)
        self.linear = nn.Linear(latent_dim, prod(self.pixels) * widths[0])
        self.blocks = nn.Sequential(*(ResidualBlock(a, b, "up", norm) for a, b in pairwise(widths)))
        self.norm = norm_of(norm, width)
        self.to_image = nn.Conv2d(width, channels, 3, padding=1)
        initialize(self, norm)

    def forward(self, z: Tensor) -> Tensor:
        x = self.blocks(self.linear(z).unflatten(1, (-1, *self.pixels)))
        y = self.to_image(F.relu(self.norm(x)))
        if self.config["norm"] != "none":
            return y.tanh()
        return y if self.training else y.clamp(-1, 1)


class Discriminator(nn.Module):
    """images [B, channels, H, W] → scores [B], or [B, outputs] where that is not 1.

    Residual blocks that halve the sides, with layer normalisation over all features and pixels of one sample and a
    scale and a shift per feature: samples do not mix, as a penalty on each sample's gradient needs.
    """

    def __init__(
        self, size: Size = 64, channels: int = 3, width: int = 64, norm: str = "layer", outputs: int = 1
    ):  # fmt: skip
        super().__init__()
        self.config = {"size": compact(size), "channels": channels, "width": width, "norm": norm}
        self.outputs = outputs
        widths = features(size, width)[::-1]
        self.from_image = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(a, b, "down", norm) for a, b in pairwise(widths)))
        self.linear = nn.Linear(prod(kernel(size)) * widths[-1], outputs)
        initialize(self, norm)

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(self.from_image(images))
        scores = self.linear(x.flatten(1))
        return torch.flatten(scores) if self.outputs == 1 else scores
