"""The Laplacian pyramid (Burt and Adelson 1983, "The Laplacian Pyramid as a Compact Image Code"), of tensors.

Sums of slices alone: on any device, in any layout and floating dtype, in a captured graph, and differentiable.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ganfast.errors import InputError


def down(x: Tensor) -> Tensor:
    """[B, C, H, W] → [B, C, H/2, W/2]: every second pixel of x blurred by (1, 4, 6, 4, 1)/16 along both axes.

    Pixels at the border go on beyond it. Raises ``InputError`` where H or W is odd.
    """
    if x.shape[2] % 2 or x.shape[3] % 2:
        raise InputError(f"x must have an even height and width to be halved, got {tuple(x.shape)}: crop or resize it.")
    for axis in (2, 3):
        padded = continued(x, axis, 2)
        a, b, c, d, e = (padded.narrow(axis, k, x.shape[axis]).unflatten(axis, (-1, 2)).select(axis + 1, 0)
                         for k in range(5))  # fmt: skip
        x = (a + e + 4 * (b + d) + 6 * c) / 16
    return x


def up(x: Tensor) -> Tensor:
    """[B, C, H, W] → [B, C, 2H, 2W]: zeros between the pixels, blurred by (1, 4, 6, 4, 1)/8 along both axes."""
    for axis in (2, 3):
        padded = continued(x, axis, 1)
        before, here, after = (padded.narrow(axis, k, x.shape[axis]) for k in range(3))
        x = torch.stack([(before + 6 * here + after) / 8, (here + after) / 2], axis + 1).flatten(axis, axis + 1)
    return x


def continued(x: Tensor, axis: int, count: int) -> Tensor:
    """``count`` copies of the border before and after x along the axis 2 or 3."""
    sides = (0, 0, count, count) if axis == 2 else (count, count, 0, 0)
    return F.pad(x, sides, "replicate")


def gaussian(x: Tensor, levels: int) -> list[Tensor]:
    """x halved ``levels`` times, …, once, and x itself: coarse to fine."""
    found = [x]
    for _ in range(levels):
        found.insert(0, down(found[0]))
    return found


def pyramid(x: Tensor, levels: int) -> list[Tensor]:
    """x halved ``levels`` times, then the residuals I − up(down(I)), coarse to fine; ``collapse`` is the inverse."""
    images = gaussian(x, levels)
    return [images[0], *(fine - up(coarse) for coarse, fine in pairwise(images))]


def collapse(levels: Sequence[Tensor]) -> Tensor:
    """The image of a pyramid: each residual added to what is below it, enlarged."""
    x, *residuals = levels
    for residual in residuals:
        x = up(x) + residual
    return x
