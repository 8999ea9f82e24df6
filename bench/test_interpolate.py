"""interpolate against ε·x + (1 − ε)·x̃ and torch.lerp, each with its own draw of ε.

pytest bench/test_interpolate.py --benchmark-only
"""

import math

import frame
import pytest
import torch
from frame import PLACES, Work

from ganfast import functional

SHAPES = [*frame.in_full((64, 3, 32, 32)), (64, 3, 64, 64), *frame.in_full((16, 3, 256, 256))]


def torch_composition(real, fake):
    epsilon = torch.rand(real.shape[0], 1, 1, 1, device=real.device)
    return epsilon * real + (1 - epsilon) * fake


def torch_lerp(real, fake):
    return torch.lerp(fake, real, torch.rand(real.shape[0], 1, 1, 1, device=real.device))


STEPS = {"ganfast": functional.interpolate, "torch": torch_composition, "lerp": torch_lerp}


def check(x, real, fake):
    """One ε per sample, in [0, 1], found again from what came out."""
    x, real, fake = (t.double() for t in (x, real, fake))
    epsilon = ((x - fake) / (real - fake)).flatten(1).median(1).values[:, None, None, None]
    assert epsilon.min() > -1e-3 and epsilon.max() < 1 + 1e-3 and epsilon.unique().numel() > 1
    assert frame.distance(x, epsilon * real + (1 - epsilon) * fake) < 1e-5


@pytest.mark.parametrize("row", STEPS)
@pytest.mark.parametrize("shape", SHAPES, ids=frame.words)
@pytest.mark.parametrize("place", PLACES)
def test_interpolate(measure, place, shape, row):
    numbers = math.prod(shape)
    measure(
        STEPS,
        make=lambda: tuple(torch.randn(shape, device=measure.device) for _ in range(2)),
        check=check,
        work=Work(bytes=12 * numbers, operations=3 * numbers, launches=2),
    )
