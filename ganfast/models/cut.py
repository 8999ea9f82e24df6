"""CUT's networks (Park et al. 2020, arXiv:2007.15651): CycleGAN's generator, antialiased, that also encodes, and heads.

Sizes, filters and ``state_dict`` keys are those of the authors' code: what the paper's text calls strided convolutions
are convolutions of stride 1 whose output is blurred and then subsampled (Zhang 2019, arXiv:1904.11486).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganfast.models import cyclegan
from ganfast.models.dcgan import initialize
from ganfast.nn import FusedSequential
from ganfast.reference.wide import wide

PAD, DOWN, BLOCKS = 0, (4, 8), 12  # of the generator's ``model``: padded images, convolutions, first residual block


def binomial(features: int, *taps: float) -> Tensor:
    """[features, 1, k, k]: the outer product of k ``taps`` with itself, of sum 1."""
    row = torch.tensor(taps) / sum(taps)
    return (row[:, None] * row).repeat(features, 1, 1, 1)


class Down(nn.Module):
    """x [B, C, H, W] → [B, C, ⌈H/2⌉, ⌈W/2⌉]: every second place of x blurred by (1, 2, 1)/4, reflected at its edges."""

    def __init__(self, features: int):
        super().__init__()
        self.pad = nn.ReflectionPad2d(1)
        self.register_buffer("filt", binomial(features, 1, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.pad(x), self.filt, stride=2, groups=len(self.filt))


class Up(nn.Module):
    """x [B, C, H, W] → [B, C, 2·H, 2·W]: bilinear, which is (1, 3, 3, 1)/4 between zeros."""

    def __init__(self, features: int):
        super().__init__()
        self.pad = nn.ReplicationPad2d(1)
        self.register_buffer("filt", 4 * binomial(features, 1, 3, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(self.pad(x), self.filt, stride=2, padding=3, groups=len(self.filt))


class Generator(nn.Module):
    """images [B, in, H, W] → images [B, out, H, W] in (−1, 1), and maps of its first half; H, W are multiples of 4.

    Maps are the padded images, what the two convolutions make that are subsampled, before that, and the first and the
    middle one of the residual blocks, the fifth of nine. ``widths`` are their channels.
    """

    def __init__(self, inside: int = 3, outside: int = 3, width: int = 64, blocks: int = 9):
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(inside, width, 7), nn.InstanceNorm2d(width), nn.ReLU()]
        for features in (2 * width, 4 * width):
            down = nn.Conv2d(features // 2, features, 3, 1, 1)
            layers += [down, nn.InstanceNorm2d(features), nn.ReLU(), Down(features)]
        layers += [cyclegan.ResidualBlock(4 * width) for _ in range(blocks)]
        for features in (2 * width, width):
            up = nn.Conv2d(2 * features, features, 3, 1, 1)
            layers += [Up(2 * features), up, nn.InstanceNorm2d(features), nn.ReLU()]
        self.model = FusedSequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, outside, 7), nn.Tanh())
        self.places = tuple(dict.fromkeys((PAD, *DOWN, BLOCKS, BLOCKS + (blocks - 1) // 2)))
        self.widths = (inside, *(self.model[k].out_channels for k in DOWN), *[4 * width] * (len(self.places) - 3))
        initialize(self)

    def forward(
        self, images: Tensor, maps: bool = False, encode: bool = False
    ) -> Tensor | list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Images; with ``maps`` images and the maps on the way to them, with ``encode`` the maps alone."""
        if not (maps or encode):
            return self.model(images)
        found, end = [], 0
        for place in self.places:
            found.append(self.model[end : place + 1](found[-1] if found else images))
            end = place + 1
        return found if encode else (self.model[end:](found[-1]), found)


class Heads(nn.Module):
    """Of maps [B, C, H, W], each at places [B, S] of its H·W, unit vectors [B, S, units]: two layers for each map."""

    def __init__(self, widths: Sequence[int], units: int = 256):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, units), nn.ReLU(), nn.Linear(units, units)) for width in widths
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0.0, 0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        found = []
        with torch.autocast(maps[0].device.type, enabled=False):  # gradients of small vectors' directions are large
            for layers, each, at in zip(self.layers, maps, places, strict=True):
                # from [B, C, H·W]: by a cotangent that lies as [1, H·W, C], torch 2.13 differentiates norms wrongly
                rows = torch.gather(each.flatten(2), 2, at[:, None].expand(-1, each.shape[1], -1)).transpose(1, 2)
                found.append(F.normalize(layers(wide(rows)), dim=2, eps=1e-4))
        return found
