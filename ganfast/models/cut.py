"""CUT's networks (Park et al. 2020, arXiv:2007.15651): CycleGAN's generator that also encodes, and heads on its maps.

Strides are those of CycleGAN, as the paper says; the authors' code blurs before it subsamples and interpolates, so that
its published checkpoints, with filters at model.7, model.11 and so on, do not fit.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganfast.models import cyclegan
from ganfast.reference.wide import wide

DOWN, BLOCKS = (4, 7), 10  # the strided convolutions of the generator's ``model``, and its first residual block


class Generator(cyclegan.Generator):
    """images [B, in, H, W] → images [B, out, H, W] in (−1, 1), and maps of its first half, the encoder.

    Maps are the images themselves, what the two strided convolutions make, and the first and the middle one of the
    residual blocks, the fifth of nine. ``widths`` are their channels.
    """

    def __init__(self, inside: int = 3, outside: int = 3, width: int = 64, blocks: int = 9):
        super().__init__(inside, outside, width, blocks)
        self.places = tuple(dict.fromkeys((*DOWN, BLOCKS, BLOCKS + (blocks - 1) // 2)))
        self.widths = (inside, *(self.model[k].out_channels for k in DOWN), *[4 * width] * (len(self.places) - 2))

    def forward(
        self, images: Tensor, maps: bool = False, encode: bool = False
    ) -> Tensor | list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Images; with ``maps`` images and the maps on the way to them, with ``encode`` the maps alone."""
        if not (maps or encode):
            return self.model(images)
        found, end = [images], 0
        for place in self.places:
            found.append(self.model[end : place + 1](found[-1]))
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
