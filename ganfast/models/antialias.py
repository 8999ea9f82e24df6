"""Halving and doubling of maps without aliases (Zhang 2019, arXiv:1904.11486), with the keys of CUT's authors' code."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
