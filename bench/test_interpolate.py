"""interpolate against ε·x + (1 − ε)·x̃ and torch.lerp, each with its own draw of ε.

pytest bench/test_interpolate.py --benchmark-only
"""

import math

import calibrate
import frame
import pytest
import torch
from frame import PLACES, Work

from ganfast import functional

CASES = [
    *frame.in_full(((64, 3, 32, 32), "fp32")), ((64, 3, 64, 64), "fp32"),
    *frame.in_full(((16, 3, 256, 256), "fp32"), ((64, 3, 64, 64), "bf16")),
]  # fmt: skip
BOUNDS = {"fp32": 1e-5, "bf16": 1e-2}


def torch_composition(real, fake):
    epsilon = torch.rand(real.shape[0], 1, 1, 1, device=real.device, dtype=real.dtype)
    return epsilon * real + (1 - epsilon) * fake


def torch_lerp(real, fake):
    return torch.lerp(fake, real, torch.rand(real.shape[0], 1, 1, 1, device=real.device, dtype=real.dtype))


STEPS = {"ganfast": functional.interpolate, "torch": torch_composition, "lerp": torch_lerp}


def check(x, real, fake):
    """One ε per sample, in [0, 1], found again from what came out."""
    bound = BOUNDS["fp32" if x.dtype == torch.float32 else "bf16"]
    x, real, fake = (t.double() for t in (x, real, fake))
    along = (real - fake).flatten(1)
    epsilon = ((x - fake).flatten(1) * along).sum(1) / along.square().sum(1)  # least squares
    epsilon = epsilon[:, None, None, None]
    assert epsilon.min() > -bound and epsilon.max() < 1 + bound and epsilon.unique().numel() > 1
    assert frame.distance(x, epsilon * real + (1 - epsilon) * fake) < bound


@pytest.mark.parametrize("row", STEPS)
@pytest.mark.parametrize("case", CASES, ids=frame.words)
@pytest.mark.parametrize("place", PLACES)
def test_interpolate(measure, place, case, row):
    shape, kind = case[0], calibrate.DTYPES[case[1]]
    numbers = math.prod(shape)
    measure(
        STEPS,
        make=lambda: tuple(torch.randn(shape, device=measure.device).to(kind) for _ in range(2)),
        check=check,
        work=Work(bytes=3 * kind.itemsize * numbers, operations=3 * numbers, launches=2),
    )
