"""The networks of DCGAN (Radford, Metz and Chintala 2015, arXiv:1511.06434) for square and rectangular images."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ganfast.errors import InputError
from ganfast.models.sizes import Size, compact, doublings, smallest
from ganfast.nn import ConvAct2d, ConvTransposeBNReLU2d, FusedSequential

MAX_MULTIPLE = 8  # 8·width features at most, reached at 4×4 of the 64×64 network of the paper


def stage_widths(size: Size, width: int) -> list[int]:
    """Features where the shorter side is 4, 8, … and half the picture's: halving with each doubling, to ``width``."""
    stages = doublings(size, 4, "DCGAN")
    if width < 1:
        raise InputError(f"width must be at least 1, got {width} (--width).")
    return [width * min(2 ** (stages - 1 - i), MAX_MULTIPLE) for i in range(stages)]


def kernel(size: Size) -> tuple[int, int]:
    """(height, width) of the convolution between the latent vector, or the logit, and features: 4×4 for squares."""
    return smallest(size, 4, "DCGAN")


def initialize(module: nn.Module, std: float = 0.02) -> None:
    """The paper's initialisation, in place: convolutions N(0, std²), BatchNorm scale N(1, std²), every bias 0."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, std)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, std)
        if getattr(layer, "bias", None) is not None:
            nn.init.zeros_(layer.bias)


class Generator(nn.Module):
    """z [B, latent_dim] ~ N(0, 1) → images [B, channels, H, W] in (−1, 1); ``size`` is (H, W), or one number for both.

    Fractionally-strided 4×4 convolutions with BatchNorm and ReLU; the last has tanh and no BatchNorm. The first one's
    kernel has the proportions of the image. Raises ``InputError`` where the shorter side is not a power of two from 16
    to 256, or the longer one not a multiple of its quarter. ``activation=None``: without the tanh.
    """

    def __init__(
        self, size: Size = 64, channels: int = 3, latent_dim: int = 100, width: int = 64,
        activation: str | None = "tanh",
    ):  # fmt: skip
        super().__init__()
        self.config = {"size": compact(size), "channels": channels, "latent_dim": latent_dim, "width": width}
        self.latent_dim = latent_dim
        widths = stage_widths(size, width)
        layers = [ConvTransposeBNReLU2d(latent_dim, widths[0], kernel(size))]  # 1×1 → 4×4 of a square
        layers += [ConvTransposeBNReLU2d(a, b, 4, 2, 1) for a, b in pairwise(widths)]
        layers += [
            ConvTransposeBNReLU2d(widths[-1], channels, 4, 2, 1, bias=True, batch_norm=False, activation=activation),
        ]
        self.layers = FusedSequential(*layers)
        initialize(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z[:, :, None, None])


class Discriminator(nn.Module):
    """images [B, channels, H, W] → logits [B], or [B, outputs] where that is not 1.

    σ(logit) is the probability that an image is real. Strided 4×4 convolutions with LeakyReLU 0.2 and BatchNorm, except
    where images enter and logits leave. ``batch_norm=False`` leaves it out everywhere: for a penalty on each sample's
    gradient samples must not mix. ``dropout``: the rate at which the inputs of all layers but the first are zeroed.
    """

    def __init__(
        self, size: Size = 64, channels: int = 3, width: int = 64, batch_norm: bool = True, outputs: int = 1,
        dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.config = {"size": compact(size), "channels": channels, "width": width, "batch_norm": batch_norm}
        self.outputs = outputs
        widths = stage_widths(size, width)[::-1]
        layers = [ConvAct2d(channels, widths[0], 4, 2, 1, bias=True, batch_norm=False)]
        layers += [ConvAct2d(a, b, 4, 2, 1, batch_norm=batch_norm) for a, b in pairwise(widths)]
        if dropout:
            layers = [each for layer in layers for each in (layer, nn.Dropout(dropout))]
        layers += [
            ConvAct2d(widths[-1], outputs, kernel(size), bias=True, batch_norm=False, activation=None)
        ]  # 4×4 → 1×1
        self.layers = FusedSequential(*layers)
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        scores = self.layers(images)
        return torch.flatten(scores) if self.outputs == 1 else scores.flatten(1)
