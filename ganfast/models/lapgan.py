"""A pyramid of generators and one of discriminators (Denton et al. 2015, arXiv:1506.05751)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganfast.errors import InputError
from ganfast.models import architectures, dcgan
from ganfast.models.pyramid import up
from ganfast.models.sizes import Size, doublings, sides, smallest
from ganfast.nn import ConvAct2d, FusedSequential

COARSEST = 8  # pixels of the shorter side
UNITS = 2  # of the fully connected networks of the coarsest level, in widths of ``architectures``


def halvings(size: Size) -> int:
    """Levels above the coarsest one, which is fully connected and has 8 pixels along its shorter side."""
    return doublings(size, COARSEST, "LAPGAN")


class Residual(nn.Module):
    """low-pass l [B, C, H, W], z [B, codes] → a residual of it [B, C, H, W].

    Three convolutions of l and of a plane of noise. The paper's plane has H·W numbers of its own; here it is a linear
    map of z, whose length does not depend on the data.
    """

    def __init__(self, size: Size, channels: int, codes: int, width: int):
        super().__init__()
        height, width_of_plane = sides(size)
        self.plane = nn.Sequential(
            nn.Linear(codes, height * width_of_plane), nn.Unflatten(1, (1, height, width_of_plane))
        )
        self.layers = FusedSequential(
            ConvAct2d(channels + 1, width, 5, padding=2, batch_norm=True, activation="relu"),
            ConvAct2d(width, width, 5, padding=2, batch_norm=True, activation="relu"),
            ConvAct2d(width, channels, 5, padding=2, bias=True, activation=None),
        )
        dcgan.initialize(self)
        nn.init.normal_(self.plane[0].weight, 0.0, codes**-0.5)  # a plane of N(0, 1)

    def forward(self, low: Tensor, z: Tensor) -> Tensor:
        return self.layers(torch.cat([low, self.plane(z)], 1))


class Generator(nn.Module):
    """z [B, latent_dim] ~ N(0, 1) → images [B, channels, …] of 8, 16, … pixels along the shorter side, up to ``size``.

    The first numbers of z are the coarsest generator's, then ``detail`` are each residual generator's.
    """

    def __init__(self, size: Size = 64, channels: int = 3, latent_dim: int = 100, detail: int = 8, width: int = 64):
        super().__init__()
        levels = halvings(size)
        first = latent_dim - levels * detail
        if first < 1:
            raise InputError(
                f"latent_dim must be above {levels * detail}, {detail} for each of {levels} doublings, got "
                f"{latent_dim} (--latent-dim, --detail)."
            )
        self.split = [first, *[detail] * levels]
        coarsest = smallest(size, COARSEST, "LAPGAN")
        self.coarsest = architectures.generator((channels, *coarsest), first, UNITS * width, "mlp")
        self.residuals = nn.ModuleList(
            Residual([side << k for side in coarsest], channels, detail, width) for k in range(1, levels + 1)
        )

    def forward(self, z: Tensor, reals: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The chain: images of every size, each made of the one before, or of that of ``reals`` as in training."""
        z, *details = z.split(self.split, 1)
        images = [self.coarsest(z)]
        for k, (residual, detail) in enumerate(zip(self.residuals, details)):
            low = up((reals or images)[k])
            images.append(low + residual(low, detail))
        return images


class Discriminators(nn.Module):
    """``levels``: a discriminator for each size, coarse to fine: images, which are low-pass + residual → logits [B]."""

    def __init__(self, size: Size = 64, channels: int = 3, width: int = 64, batch_norm: bool = True):
        super().__init__()
        coarsest = smallest(size, COARSEST, "LAPGAN")
        above = range(1, halvings(size) + 1)
        self.levels = nn.ModuleList([
            architectures.discriminator((channels, *coarsest), UNITS * width, "mlp"),
            *(dcgan.Discriminator([side << k for side in coarsest], channels, width, batch_norm) for k in above),
        ])  # fmt: skip
