"""SRGAN's networks (Ledig et al. 2017, arXiv:1609.04802, figure 4)."""

import math

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x [B, C, H, W] → x + two 3×3 convolutions with BatchNorm, PReLU between them."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.PReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class SRResNet(nn.Module):
    """Images [B, C, H, W] → [B, C, scale·H, scale·W], of any size; ``scale`` is a power of two.

    With ``residual`` they are added to the bicubic ones, and are 0 in the beginning.
    """

    def __init__(
        self, channels: int = 3, width: int = 64, blocks: int = 16, scale: int = 4, residual: bool = False
    ):  # fmt: skip
        super().__init__()
        self.scale, self.residual = scale, residual
        self.head = nn.Sequential(nn.Conv2d(channels, width, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(
            *(ResidualBlock(width) for _ in range(blocks)),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.tail = nn.Sequential()
        for _ in range(int(math.log2(scale))):
            self.tail.extend([nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()])
        self.tail.append(nn.Conv2d(width, channels, 9, padding=4))
        if residual:
            nn.init.zeros_(self.tail[-1].weight)
            nn.init.zeros_(self.tail[-1].bias)

    def forward(self, images: Tensor) -> Tensor:
        x = self.head(images)
        x = self.tail(x + self.body(x))
        return enlarged(images, self.scale) + x if self.residual else x


def enlarged(images: Tensor, scale: int) -> Tensor:
    """Bicubic."""
    return F.interpolate(images, scale_factor=scale, mode="bicubic")


class Discriminator(nn.Module):
    """Images [B, C, height, width] → logits [B, 1]: eight 3×3 convolutions, every second of stride 2, two dense."""

    def __init__(self, size: tuple[int, int], channels: int = 3, width: int = 64):
        super().__init__()
        layers, before = [], channels
        for k in range(8):
            after, stride = width * 2 ** (k // 2), 1 + k % 2
            norm = [nn.BatchNorm2d(after)] if k else []
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=not k), *norm, nn.LeakyReLU(0.2)]
            before = after
        places = math.prod(-(-side // 16) for side in size)
        dense = [nn.Linear(before * places, 16 * width), nn.LeakyReLU(0.2), nn.Linear(16 * width, 1)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), *dense)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)
