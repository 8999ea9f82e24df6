"""Batch normalisation with ReLU in training against torch's two calls, eager and compiled.

    pytest bench/test_batch_norm_act.py --benchmark-only

The least that must be moved: y read and a written; y and da read and dy written; those and what comes into dy read once
more and two results written.
"""

import functools
import math

import calibrate
import frame
import pytest
import torch
import torch.nn.functional as F
from frame import PLACES, Work

from ganfast import functional

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
LARGE = (64, 64, 32, 32)
CASES = [
    (LARGE, "channels_last", "fp32", "backward"),
    *frame.in_full(
        (LARGE, "channels_last", "bf16", "backward"),
        *((LARGE, layout, "fp32", which) for layout in LAYOUTS for which in ("forward", "double")),
        (LARGE, "contiguous", "fp32", "backward"),
        *(
            (shape, layout, "fp32", "backward")
            for shape in ((64, 128, 16, 16), (64, 256, 8, 8), (64, 512, 4, 4)) for layout in LAYOUTS
        ),
    ),
]  # fmt: skip
BOUNDS = {"fp32": 3e-3, "bf16": 2e-2}  # where the result is 0 but for rounding, relu's slope may be the other one
TRAFFIC = {"forward": 2, "backward": 5, "double": 9}  # tensors read or written
OPERATIONS = {"forward": 6, "backward": 14, "double": 30}  # of an element


def torch_composition(y, mean, var, weight, bias):
    return F.relu(F.batch_norm(y, mean, var, weight, bias, True))


FORWARDS = {
    "ganfast": lambda *args: functional.batch_norm_act(*args, training=True),
    "torch": torch_composition,
    "compiled": torch.compile(torch_composition, dynamic=False),
}


def step(forward, which, y, mean, var, weight, bias, da):
    """a, and dy, dweight, dbias; "double": and of Σ dy² + Σ dweight² + Σ dbias² with respect to y and weight."""
    if which == "forward":
        with torch.no_grad():
            return (forward(y, mean, var, weight, bias),)
    leaves = [v.detach().requires_grad_() for v in (y, weight, bias)]
    a = forward(leaves[0], mean, var, *leaves[1:])
    first = torch.autograd.grad(a, leaves, da, create_graph=which == "double")
    if which == "backward":
        return a.detach(), *first
    return a.detach(), *torch.autograd.grad(sum(g.float().square().sum() for g in first), leaves[:2])


@pytest.mark.parametrize("row", ["ganfast", "torch", *frame.in_full("compiled")])
@pytest.mark.parametrize("case", CASES, ids=frame.words)
@pytest.mark.parametrize("place", PLACES)
def test_batch_norm_act(measure, place, case, row):
    shape, layout, dtype, which = case
    if row == "compiled" and which == "double":
        pytest.skip("torch.compile has no double backward")

    def make():
        y, da = (
            torch.randn(shape, device=measure.device).to(calibrate.DTYPES[dtype], memory_format=LAYOUTS[layout])
            for _ in range(2)
        )
        return y, *(torch.rand(shape[1], device=measure.device) + 0.5 for _ in range(4)), da

    numbers, item = math.prod(shape), calibrate.DTYPES[dtype].itemsize
    measure(
        {name: functools.partial(step, forward, which) for name, forward in FORWARDS.items()},
        make=make,
        check=frame.close(BOUNDS[dtype], functools.partial(step, torch_composition, which)),
        work=Work(
            bytes=TRAFFIC[which] * item * numbers,
            operations=OPERATIONS[which] * numbers,
            launches=1 if which == "forward" else 2,
        ),
    )
