"""Generators, discriminators and encoders by the name of an architecture, for images and for points."""

import torch
from torch import Tensor, nn

from ganfast.errors import InputError
from ganfast.models import dcgan, mlp, resnet

ARCHITECTURES = ("dcgan", "resnet", "mlp")
UNITS = 4  # hidden units of fully connected networks for each one of width


def generator(shape: tuple[int, ...], latent_dim: int, width: int, architecture: str, norm: bool = True) -> nn.Module:
    """z [B, latent_dim] → samples [B, *shape]; points have fully connected networks of 4·width units a layer."""
    if fully_connected(shape, architecture):
        return mlp.Generator(shape, latent_dim, UNITS * width, norm)
    channels, *size = shape
    if architecture == "resnet":
        return resnet.Generator(size, channels, latent_dim, width, "batch" if norm else "none")
    return dcgan.Generator(size, channels, latent_dim, width)


def discriminator(
    shape: tuple[int, ...], width: int, architecture: str, norm: bool = True, packing: int = 1
) -> nn.Module:  # fmt: skip
    """samples [B, *shape] → scores [B]; with ``packing`` m the channels, or coordinates, of m samples at once.

    ``norm``: BatchNorm in convolutional networks, which mixes samples, layer normalisation in residual ones.
    """
    packed = (packing * shape[0], *shape[1:])
    if fully_connected(shape, architecture):
        return mlp.Discriminator(packed, UNITS * width // 2)
    channels, *size = packed
    if architecture == "resnet":
        return resnet.Discriminator(size, channels, width, "layer" if norm else "none")
    return dcgan.Discriminator(size, channels, width, batch_norm=norm)


def fully_connected(shape: tuple[int, ...], architecture: str) -> bool:
    if architecture not in ARCHITECTURES:
        raise InputError(f"architecture must be {', '.join(ARCHITECTURES)}, got {architecture!r} (--architecture).")
    return architecture == "mlp" or len(shape) == 1


def encoder(shape: tuple[int, ...], outputs: int, width: int, architecture: str, norm: bool = True) -> nn.Module:
    """samples [B, *shape] → numbers [B, outputs]: logits of classes, a latent vector, the two halves of a Gaussian.

    A discriminator's layers that end in ``outputs`` numbers; fully connected ones have BatchNorm and ReLU.
    """
    if fully_connected(shape, architecture):
        return mlp.Encoder(shape, outputs, UNITS * width, norm)
    channels, *size = shape
    if architecture == "resnet":
        return resnet.Discriminator(size, channels, width, "layer" if norm else "none", outputs)
    return dcgan.Discriminator(size, channels, width, norm, outputs)


class Joint(nn.Module):
    """samples x [B, ...], codes z [B, n] → scores [B] of pairs: ``features`` of each, and two layers that see both.

    Donahue et al. 2016 (arXiv:1605.09782) and Dumoulin et al. 2016 (arXiv:1606.00704) tell (x, E(x)) from (G(z), z).
    ``encoder`` makes features of x; z has layers of its own (Dumoulin et al.), and so the same weight as x at first.
    """

    def __init__(self, encoder: nn.Module, features: int, codes: int):
        super().__init__()
        self.encoder = encoder
        self.codes = nn.Sequential(nn.Linear(codes, features), nn.LeakyReLU(0.2), nn.Linear(features, features))
        self.joint = nn.Sequential(
            nn.LeakyReLU(0.2), nn.Linear(2 * features, features), nn.LeakyReLU(0.2), nn.Linear(features, 1)
        )
        for layer in (*self.codes, *self.joint):
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, 0.2)
                nn.init.zeros_(layer.bias)

    def forward(self, samples: Tensor, codes: Tensor) -> Tensor:
        return self.joint(torch.cat([self.encoder(samples), self.codes(codes)], 1)).flatten()


class Packed(nn.Module):
    """samples [B, C, ...] → scores [B/m] of a ``network`` of m·C channels: m samples side by side (Lin et al. 2018)."""

    def __init__(self, network: nn.Module, packing: int):
        super().__init__()
        self.network, self.packing = network, packing

    def forward(self, samples: Tensor) -> Tensor:
        if len(samples) % self.packing:
            raise InputError(
                f"{len(samples)} samples cannot be packed by {self.packing}: give a multiple of it (--batch)."
            )
        return self.network(samples.unflatten(0, (-1, self.packing)).flatten(1, 2))
