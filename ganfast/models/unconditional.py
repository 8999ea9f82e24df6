"""The networks of unconditional GANs by name, for images and for points."""

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
