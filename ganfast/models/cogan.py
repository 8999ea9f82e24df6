"""Pairs of networks that share the layers far from the pixels (Liu and Tuzel 2016, arXiv:1606.07536)."""

import torch
from torch import Tensor, nn

from ganfast.models import dcgan
from ganfast.models.sizes import Size
from ganfast.nn import FusedSequential


class Generators(nn.Module):
    """z [B, latent_dim] → images (a, b), each [B, channels, H, W]: DCGAN's, whose last layer each has of its own."""

    def __init__(self, size: Size = 32, channels: int = 1, latent_dim: int = 100, width: int = 64):
        super().__init__()
        *shared, a = dcgan.Generator(size, channels, latent_dim, width).layers
        *_, b = dcgan.Generator(size, channels, latent_dim, width).layers
        self.shared, self.a, self.b = FusedSequential(*shared), a, b

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        features = self.shared(z[:, :, None, None])
        return self.a(features), self.b(features)


class Discriminators(nn.Module):
    """images a [B, channels, H, W] and b [B', ...] → logits [B + B']: DCGAN's, whose first layer each has of its own.

    BatchNorm of the shared layers is over both sets.
    """

    def __init__(self, size: Size = 32, channels: int = 1, width: int = 64):
        super().__init__()
        a, *shared = dcgan.Discriminator(size, channels, width).layers
        b, *_ = dcgan.Discriminator(size, channels, width).layers
        self.a, self.b, self.shared = a, b, FusedSequential(*shared)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.shared(torch.cat([self.a(a), self.b(b)])).flatten()
