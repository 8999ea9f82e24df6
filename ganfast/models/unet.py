"""The U-Net of pix2pix (Isola et al. 2017, arXiv:1611.07004, 6.1.1) with the state_dict keys of the authors' code."""

import math

import torch
from torch import Tensor, nn

from ganfast.errors import InputError
from ganfast.models import norms
from ganfast.models.dcgan import initialize
from ganfast.models.sizes import Size, sides

DEEPEST = 8  # 8·width features at most


def depth_of(size: Size) -> int:
    """How often both sides halve: a power of two ends at one pixel. ``InputError`` for less than four times."""
    common = math.gcd(*sides(size))
    if common % 16:
        raise InputError(
            f"a U-Net takes images whose sides are multiples of 16, not {' × '.join(map(str, sides(size)))}: "
            "choose another size (--size)."
        )
    return (common & -common).bit_length() - 1


class Level(nn.Module):
    """x → x and what ``layers`` make of it, along the channels; the outermost one gives that alone."""

    def __init__(self, *layers: nn.Module, skip: bool = True):
        super().__init__()
        self.model, self.skip = nn.Sequential(*layers), skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.model(x)], 1) if self.skip else self.model(x)


class UNet(nn.Module):
    """images [B, inside, H, W] → images [B, outside, H, W] in (−1, 1): an encoder and a decoder with skips between.

    4×4 convolutions of stride 2 halve both sides of ``size`` as long as they are even, then as many transposed ones
    double them. ``width`` features at first, twice as many at each halving up to 8·width. Dropout follows the decoder's
    first three layers of those that keep 8·width features, as in the paper's CD512. Any sides that are multiples of
    2^depth fit.
    """

    def __init__(
        self, size: Size = 256, inside: int = 3, outside: int = 3, width: int = 64, norm: norms.Norm = "batch",
        dropout: float = 0.5,
    ):  # fmt: skip
        super().__init__()
        self.depth = depth_of(size)
        features = [width * min(2**k, DEEPEST) for k in range(self.depth)]
        bias = norm == "instance"
        level = None
        for k in reversed(range(1, self.depth)):
            outer, inner = features[k - 1], features[k]
            down = [nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1, bias=bias)]
            if level:
                down += [norms.layer(norm, inner), level]
            up = nn.ConvTranspose2d(2 * inner if level else inner, outer, 4, 2, 1, bias=bias)
            drops = dropout and k > 3 and k >= self.depth - 3
            level = Level(
                *down, nn.ReLU(), up, norms.layer(norm, outer), *([nn.Dropout(dropout)] if drops else [])
            )  # fmt: skip
        self.model = Level(
            nn.Conv2d(inside, width, 4, 2, 1, bias=bias), level,
            nn.ReLU(), nn.ConvTranspose2d(2 * width, outside, 4, 2, 1), nn.Tanh(), skip=False,
        )  # fmt: skip
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)
