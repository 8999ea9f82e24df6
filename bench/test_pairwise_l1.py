"""pairwise_l1 against what a user would write: broadcasting, torch.cdist, compiled broadcasting.

pytest bench/test_pairwise_l1.py --benchmark-only
"""

import frame
import pytest
import torch
from frame import PLACES, Work

from ganfast import functional

SHAPES = [*frame.in_full((64, 100, 5)), (256, 100, 5), *frame.in_full((256, 50, 16))]
LARGE = frame.in_full((1024, 50, 16), (1024, 100, 5), (4096, 100, 5))  # up to 34 GB by broadcasting: ganfast alone


def broadcast(m):
    return torch.exp(-(m[:, None] - m[None]).abs().sum(-1)).sum(1)


def cdist(m):
    across = m.transpose(0, 1)  # [nk, B, kd]
    return torch.exp(-torch.cdist(across, across, p=1)).sum(-1).t()


FUNCTIONS = {
    "ganfast": functional.pairwise_l1,
    "cdist": cdist,
    "broadcast": broadcast,
    # with two threads its generated code took four times as long as with one
    "compiled broadcast": torch.compile(broadcast, options={"cpp.threads": 1}),
}


def step_of(function, which):
    """(o,), or o and the gradient of Σ g·o, or o and the gradients of its square sum."""

    def double(m, g):
        m, g = m.detach().requires_grad_(), g.detach().requires_grad_()
        o = function(m)
        (dm,) = torch.autograd.grad(o, m, g, create_graph=True)
        return o.detach(), *torch.autograd.grad(dm.square().sum(), (m, g))

    def backward(m, g):
        m = m.detach().requires_grad_()
        o = function(m)
        return o.detach(), *torch.autograd.grad(o, m, g)

    def forward(m, g):
        with torch.no_grad():
            return (function(m),)

    return {"forward": forward, "backward": backward, "double": double}[which]


def check(results, m, g):
    """The first rows against fp64."""
    difference = m[:3, None].double() - m[None].double()  # [3, B, nk, kd]
    e = torch.exp(-difference.abs().sum(-1))
    terms = ((g[:3, None] + g[None]).double() * e)[..., None] * difference.sign()
    truth = (e.sum(1), -terms.sum(1))
    for got, wanted in zip(results, truth):
        assert frame.distance(got[:3], wanted) < 1e-5


def run(measure, functions, which, shape):
    batch, kernels, dimensions = shape

    def make():
        m = torch.randn(shape, device=measure.device) / dimensions
        return m, torch.randn(batch, kernels, device=measure.device)

    # a pair and kernel: differences, magnitudes and sums, one exponential, signs pulled back in the backward
    pairs = batch * (batch - 1) / 2 * kernels
    operations = pairs * (3 * dimensions + 2) * (1 if which == "forward" else 2)
    size = 4 * batch * kernels
    work = Work(bytes=size * (dimensions + 1) * (1 if which == "forward" else 2), operations=operations)
    right = frame.close(1e-5, step_of(broadcast, which)) if which == "double" else check
    measure({name: step_of(f, which) for name, f in functions.items()}, make, right, work)


@pytest.mark.parametrize("row", FUNCTIONS)
@pytest.mark.parametrize("which", [*frame.in_full("forward"), "backward", *frame.in_full("double")])
@pytest.mark.parametrize("shape", SHAPES, ids=frame.words)
@pytest.mark.parametrize("place", PLACES)
def test_pairwise_l1(measure, place, shape, which, row):
    if which == "double" and (row not in ("ganfast", "broadcast") or shape != SHAPES[0].values[0]):
        pytest.skip("a small shape is enough; torch.cdist and torch.compile have no double backward")
    run(measure, FUNCTIONS, which, shape)


@pytest.mark.parametrize("row", ["ganfast"])
@pytest.mark.parametrize("shape", LARGE, ids=frame.words)
@pytest.mark.parametrize("place", PLACES)
def test_pairwise_l1_large(measure, place, shape, row):
    run(measure, {"ganfast": functional.pairwise_l1}, "backward", shape)
