"""Pairs of networks that share the layers far from the pixels (Liu and Tuzel 2016, arXiv:1606.07536)."""

import torch
from torch import Tensor, nn

from ganfast.errors import InputError
from ganfast.models import dcgan
from ganfast.models.sizes import Size
from ganfast.nn import FusedSequential


class Generators(nn.Module):
    """z [B, latent_dim] → images (a, b), each [B, channels, H, W]: DCGAN's, each with its ``own`` last layers."""

    def __init__(self, size: Size = 32, channels: int = 1, latent_dim: int = 100, width: int = 64, own: int = 1):
        super().__init__()
        a, b = (dcgan.Generator(size, channels, latent_dim, width).layers for _ in "ab")
        if not 1 <= own < len(a):
            raise InputError(f"own must be from 1 to {len(a) - 1} of {len(a)} layers, got {own} (--own).")
        self.shared, self.a, self.b = a[:-own], a[-own:], b[-own:]

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        features = self.shared(z[:, :, None, None])
        return self.a(features), self.b(features)


class Discriminators(nn.Module):
    """images [2B, channels, H, W], half of each set → logits [2B]: DCGAN's, with a first layer for each set.

    BatchNorm of the shared layers is over both sets.
    """

    def __init__(self, size: Size = 32, channels: int = 1, width: int = 64):
        super().__init__()
        a, *shared = dcgan.Discriminator(size, channels, width).layers
        b, *_ = dcgan.Discriminator(size, channels, width).layers
        self.a, self.b, self.shared = a, b, FusedSequential(*shared)

    def forward(self, images: Tensor) -> Tensor:
        a, b = images.chunk(2)
        return self.shared(torch.cat([self.a(a), self.b(b)])).flatten()
