"""Batch normalisation with ReLU, training, forward and backward, against torch's two calls, eager and compiled.

    pytest bench/test_batch_norm_act.py --benchmark-only

The least that must be moved: y read and a written; y and da read and dy written.
"""

import functools
import math

import frame
import pytest
import torch
import torch.nn.functional as F
from frame import PLACES, Work

from ganfast import functional

SHAPES = [(64, 64, 32, 32), *frame.in_full((64, 128, 16, 16), (64, 256, 8, 8), (64, 512, 4, 4))]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def torch_composition(y, mean, var, weight, bias):
    return F.relu(F.batch_norm(y, mean, var, weight, bias, True))


FORWARDS = {
    "ganfast": lambda *args: functional.batch_norm_act(*args, training=True),
    "torch": torch_composition,
    "compiled": torch.compile(torch_composition, dynamic=False),
}


def step(forward, y, mean, var, weight, bias, da):
    """a, dy, dweight and dbias."""
    leaves = [v.detach().requires_grad_() for v in (y, weight, bias)]
    a = forward(leaves[0], mean, var, *leaves[1:])
    return a.detach(), *torch.autograd.grad(a, leaves, da)


@pytest.mark.parametrize("row", ["ganfast", "torch", *frame.in_full("compiled")])
@pytest.mark.parametrize("layout", [*frame.in_full("contiguous"), "channels_last"])
@pytest.mark.parametrize("shape", SHAPES, ids=frame.words)
@pytest.mark.parametrize("place", PLACES)
def test_batch_norm_act(measure, place, shape, layout, row):
    def make():
        y, da = (torch.randn(shape, device=measure.device).to(memory_format=LAYOUTS[layout]) for _ in range(2))
        channels = [torch.rand(shape[1], device=measure.device) + 0.5 for _ in range(4)]
        return y, *channels, da

    numbers = math.prod(shape)
    measure(
        {name: functools.partial(step, forward) for name, forward in FORWARDS.items()},
        make=make,
        # where the result is 0 but for rounding, relu's slope may be the other one
        check=frame.close(1e-3, functools.partial(step, torch_composition)),
        work=Work(bytes=20 * numbers, operations=14 * numbers, launches=2),
    )
