"""What a WGAN-GP step computes beside its critic, against the plain torch composition.

    pytest bench/test_gradient_penalty.py --benchmark-only

test_around_the_critic: interpolation, norms, penalty and seed. The composition is what a user writes: ε·x + (1 − ε)·x̃,
norm over flat samples, the mean, autograd for ∂P/∂g; "compiled" is its formula under torch.compile, which does not
trace autograd.grad by default. test_gradient_penalty: the penalty of given gradients, and its derivatives.
"""

import math

import frame
import pytest
import torch
from frame import PASSES, PLACES, Work, passes
from test_interpolate import SHAPES, torch_composition
from test_interpolate import check as check_interpolation

from ganfast import functional, reference


def gradients(shape, device):
    g = torch.randn(shape, device=device)
    return g / g.flatten(1).norm(dim=1)[:, None, None, None] * (0.5 + torch.rand(shape[0], 1, 1, 1, device=device))


def torch_penalty(g):
    return 10 * (g.flatten(1).norm(2, dim=1) - 1).square().mean()


def around_ganfast(real, fake, g):
    return functional.interpolate(real, fake), *functional.gradient_penalty_terms(g)


def around_torch(real, fake, g):
    leaf = g.detach().requires_grad_()
    norms = leaf.flatten(1).norm(2, dim=1)
    penalty = 10 * (norms - 1).square().mean()
    (seed,) = torch.autograd.grad(penalty, leaf)
    return torch_composition(real, fake), penalty.detach(), norms.detach(), seed


@torch.compile(dynamic=False)
def around_compiled(real, fake, g):
    norms = g.flatten(1).norm(2, dim=1)
    factor = 20 / g.shape[0] * (norms - 1) / norms
    penalty = 10 * (norms - 1).square().mean()
    return torch_composition(real, fake), penalty, norms, factor[:, None, None, None] * g


AROUND = {"ganfast": around_ganfast, "torch": around_torch, "compiled": around_compiled}


def check_around(results, real, fake, g):
    x, *rest = results
    check_interpolation(x, real, fake)
    for got, wanted in zip(rest, reference.gradient_penalty(g.double()), strict=True):
        assert frame.distance(got, wanted) < 1e-5


@pytest.mark.parametrize("row", AROUND)
@pytest.mark.parametrize("shape", SHAPES, ids=frame.words)
@pytest.mark.parametrize("place", PLACES)
def test_around_the_critic(measure, place, shape, row):
    numbers = math.prod(shape)

    def make():
        real, fake = (torch.randn(shape, device=measure.device) for _ in range(2))
        return real, fake, gradients(shape, measure.device)

    measure(AROUND, make, check_around, Work(bytes=20 * numbers, operations=6 * numbers, launches=4))


PENALTIES = {"ganfast": functional.gradient_penalty, "torch": torch_penalty}


@pytest.mark.parametrize("row", PENALTIES)
@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("shape", SHAPES, ids=frame.words)
@pytest.mark.parametrize("place", PLACES)
def test_gradient_penalty(measure, place, shape, which, row):
    numbers = math.prod(shape)
    measure(
        {name: passes(f, which) for name, f in PENALTIES.items()},
        make=lambda: (gradients(shape, measure.device),),
        check=frame.close(1e-4, passes(lambda g: reference.gradient_penalty(g)[0], which)),
        work=Work(bytes=(4 if which == "forward" else 8) * numbers, operations=2 * numbers, launches=2),
    )
