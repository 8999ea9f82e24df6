"""The family of normalisations with ReLU against torch's calls, eager and compiled, at the sizes of translators.

    pytest bench/test_norm_act.py --benchmark-only

The least that must be moved: y read and a written; y and da read and dy written; of SPADE weight and bias read twice
and their gradients written.
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
BATCH = {1: ((1, 64, 128, 128), (1, 128, 64, 64), (1, 256, 32, 32)), 4: ((4, 64, 128, 128), (4, 256, 32, 32))}


def against(v, y):
    return v.reshape(*v.shape, *[1] * (y.dim() - v.dim()))


def instance_norm(y):
    """torch's; on a CPU torch 2.13 differentiates F.instance_norm of one channels_last sample wrongly."""
    return F.batch_norm(y, None, None, training=True) if len(y) == 1 else F.instance_norm(y)


# name → groups of C channels, shape of weight and bias for y's, or None; torch's own
KINDS = {
    "instance": (lambda c: c, None, instance_norm),
    "group": (lambda c: 32, lambda shape: shape[1:2], lambda y, w, b: F.group_norm(y, 32, w, b)),
    "layer": (lambda c: 1, lambda shape: shape[1:2], lambda y, w, b: F.group_norm(y, 1, w, b)),
    "conditional": (
        lambda c: 0,
        lambda shape: shape[:2],
        lambda y, w, b: F.batch_norm(y, None, None, training=True) * against(w, y) + against(b, y),
    ),
    "adain": (lambda c: c, lambda shape: shape[:2], lambda y, w, b: instance_norm(y) * against(w, y) + against(b, y)),
    "spade": (lambda c: 0, lambda shape: shape, lambda y, w, b: F.batch_norm(y, None, None, training=True) * w + b),
}
CASES = [
    ("instance", BATCH[1][-1], "contiguous", "fp32", "backward"),
    ("instance", BATCH[1][-1], "channels_last", "fp32", "backward"),
    *frame.in_full(
        *(
            ("instance", shape, layout, "fp32", "backward")
            for shape in (*BATCH[1][:-1], *BATCH[4]) for layout in LAYOUTS
        ),
        *((kind, BATCH[4][-1], layout, "fp32", "backward") for kind in list(KINDS)[1:] for layout in LAYOUTS),
        *(("instance", BATCH[4][-1], layout, "fp32", which) for layout in LAYOUTS for which in ("forward", "double")),
        ("instance", BATCH[4][-1], "contiguous", "bf16", "backward"),
    ),
]  # fmt: skip
BOUNDS = {"fp32": 3e-3, "bf16": 2e-2}  # where the result is 0 but for rounding, relu's slope may be the other one
TRAFFIC = {"forward": 2, "backward": 5, "double": 9}  # tensors read or written
BY_PIXEL = {"forward": 2, "backward": 6, "double": 12}  # the same of weight and bias like y
OPERATIONS = {"forward": 6, "backward": 14, "double": 30}  # of an element


def forwards(kind):
    groups, _, normalise = KINDS[kind]

    def torchs(y, *affine):
        return F.relu(normalise(y, *affine))

    def ganfasts(y, *affine):
        return functional.norm_act(y, groups(y.shape[1]), *affine, activation="relu")[0]

    return {"ganfast": ganfasts, "torch": torchs, "compiled": torch.compile(torchs, dynamic=False)}


def step(forward, which, da, *tensors):
    """a, and the gradients of y, weight and bias; "double": and of the sum of their squares with respect to y."""
    if which == "forward":
        with torch.no_grad():
            return (forward(*tensors),)
    leaves = [v.detach().requires_grad_() for v in tensors]
    a = forward(*leaves)
    first = torch.autograd.grad(a, leaves, da, create_graph=which == "double")
    if which == "backward":
        return a.detach(), *first
    return a.detach(), *torch.autograd.grad(sum(g.float().square().sum() for g in first), leaves[:1])


@pytest.mark.parametrize("row", ["ganfast", "torch", *frame.in_full("compiled")])
@pytest.mark.parametrize("case", CASES, ids=frame.words)
@pytest.mark.parametrize("place", PLACES)
def test_norm_act(measure, place, case, row):
    kind, shape, layout, dtype, which = case
    if row == "compiled" and which == "double":
        pytest.skip("torch.compile has no double backward")
    size = KINDS[kind][1]

    def make():
        like_y = [shape, shape] if size is None or size(shape) != shape else [shape] * 4
        da, y, *affine = (
            torch.randn(s, device=measure.device).to(calibrate.DTYPES[dtype], memory_format=LAYOUTS[layout])
            for s in like_y
        )
        if size is not None and not affine:
            affine = [torch.rand(size(shape), device=measure.device) + 0.5 for _ in range(2)]
        return da, y, *affine

    numbers, item = math.prod(shape), calibrate.DTYPES[dtype].itemsize
    traffic = TRAFFIC[which] + (BY_PIXEL[which] if kind == "spade" else 0)
    rows = forwards(kind)
    measure(
        {name: functools.partial(step, forward, which) for name, forward in rows.items()},
        make=make,
        check=frame.close(BOUNDS[dtype], functools.partial(step, rows["torch"], which)),
        work=Work(
            bytes=traffic * item * numbers,
            operations=OPERATIONS[which] * numbers,
            launches=1 if which == "forward" else 2,
        ),
    )
