"""InfoGAN's networks (Chen et al. 2016, arXiv:1606.03657): those of its MNIST, or DCGAN's with a recognition network.

Those of the paper (table 1) have two strided convolutions and two fully connected layers, which here are convolutions
whose kernel is all that they see: BatchNorm after them is by channel.
"""

from torch import Tensor, nn

from ganfast.errors import InputError
from ganfast.models import dcgan
from ganfast.models.sizes import Size, sides
from ganfast.nn import ConvAct2d, ConvTransposeBNReLU2d, FusedSequential

UNITS = 16  # of the fully connected layers, for each one of width: 1024
SLOPE = 0.1  # of the discriminator's LeakyReLU


def quarter(size: Size) -> tuple[int, int]:
    """(H / 4, W / 4): of the features between the convolutions and the fully connected layers."""
    if any(side % 4 for side in sides(size)):
        raise InputError(f"InfoGAN's networks need sides that are multiples of 4, got {size} (--size).")
    return tuple(side // 4 for side in sides(size))


class Generator(nn.Module):
    """z [B, latent_dim] → images [B, channels, H, W] in (−1, 1); the paper's at width 64."""

    def __init__(self, size: Size = 28, channels: int = 1, latent_dim: int = 74, width: int = 64):
        super().__init__()
        self.layers = FusedSequential(
            ConvTransposeBNReLU2d(latent_dim, UNITS * width, 1),
            ConvTransposeBNReLU2d(UNITS * width, 2 * width, quarter(size)),
            ConvTransposeBNReLU2d(2 * width, width, 4, 2, 1),
            ConvTransposeBNReLU2d(width, channels, 4, 2, 1, bias=True, batch_norm=False, activation="tanh"),
        )
        dcgan.initialize(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z[:, :, None, None])


def layers(size: Size, channels: int, width: int, architecture: str) -> list[nn.Module]:
    """Of a discriminator, the last makes the logits of what the others make of images."""
    if architecture == "dcgan":
        return list(dcgan.Discriminator(size, channels, width).layers)
    return [
        ConvAct2d(channels, width, 4, 2, 1, negative_slope=SLOPE),
        ConvAct2d(width, 2 * width, 4, 2, 1, batch_norm=True, negative_slope=SLOPE),
        ConvAct2d(2 * width, UNITS * width, quarter(size), batch_norm=True, negative_slope=SLOPE),
        ConvAct2d(UNITS * width, 1, 1, activation=None),
    ]


class Discriminator(nn.Module):
    """images [B, channels, H, W] → logits [B]; with ``features=True`` also those that its last layer sees, for Q."""

    def __init__(self, size: Size = 28, channels: int = 1, width: int = 64, architecture: str = "paper"):
        super().__init__()
        *trunk, self.last = layers(size, channels, width, architecture)
        self.trunk = FusedSequential(*trunk)
        dcgan.initialize(self)

    def forward(self, images: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        found = self.trunk(images)
        logits = self.last(found).flatten()
        return (logits, found) if features else logits


class Recognition(nn.Module):
    """Features [B, F, *kernel] of the discriminator → (logits [B, categories], means [B, codes]) of the codes."""

    def __init__(
        self, features: int, categories: int, codes: int, width: int = 128, kernel: int | tuple[int, int] = 1
    ):  # fmt: skip
        super().__init__()
        self.categories = categories
        self.layers = nn.Sequential(
            ConvAct2d(features, width, kernel, batch_norm=True, negative_slope=SLOPE),
            nn.Flatten(), nn.Linear(width, categories + codes),
        )  # fmt: skip
        dcgan.initialize(self)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.layers(features).tensor_split([self.categories], 1)
