"""What a WGAN-GP step computes beside its critic, against the plain torch composition.

    pytest bench/test_gradient_penalty.py --benchmark-only

test_around_the_critic: interpolation, norms, penalty and seed. The composition is what a user writes: ε·x + (1 − ε)·x̃,
norm over flat samples, the mean, autograd for ∂P/∂g; "compiled" is its formula under torch.compile, which does not
trace autograd.grad by default. test_gradient_penalty: the penalty of given gradients, and its derivatives.
"""

import math

import calibrate
import frame
import pytest
import torch
from frame import PASSES, PLACES, Work, passes
from test_interpolate import CASES, torch_composition
from test_interpolate import check as check_interpolation

from ganfast import functional, reference

# torch's norms are rounded to bf16, and 10·(n − 1)² is what is left of them near 1
BOUNDS = {"fp32": 1e-4, "bf16": 5e-2}


def gradients(case, device):
    shape, dtype = case
    g = torch.randn(shape, device=device)
    g = g / g.flatten(1).norm(dim=1)[:, None, None, None] * (0.5 + torch.rand(shape[0], 1, 1, 1, device=device))
    return g.to(calibrate.DTYPES[dtype])


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
        assert frame.distance(got, wanted) < BOUNDS["fp32" if real.dtype == torch.float32 else "bf16"]


@pytest.mark.parametrize("row", AROUND)
@pytest.mark.parametrize("case", CASES, ids=frame.words)
@pytest.mark.parametrize("place", PLACES)
def test_around_the_critic(measure, place, case, row):
    shape, kind = case[0], calibrate.DTYPES[case[1]]
    numbers = math.prod(shape)

    def make():
        real, fake = (torch.randn(shape, device=measure.device).to(kind) for _ in range(2))
        return real, fake, gradients(case, measure.device)

    measure(AROUND, make, check_around, Work(bytes=5 * kind.itemsize * numbers, operations=6 * numbers, launches=4))


PENALTIES = {"ganfast": functional.gradient_penalty, "torch": torch_penalty}


@pytest.mark.parametrize("row", PENALTIES)
@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("case", CASES, ids=frame.words)
@pytest.mark.parametrize("place", PLACES)
def test_gradient_penalty(measure, place, case, which, row):
    bytes_of_g = math.prod(case[0]) * calibrate.DTYPES[case[1]].itemsize
    measure(
        {name: passes(f, which) for name, f in PENALTIES.items()},
        make=lambda: (gradients(case, measure.device),),
        check=frame.close(BOUNDS[case[1]], passes(lambda g: reference.gradient_penalty(g)[0], which)),
        work=Work(bytes=(1 if which == "forward" else 2) * bytes_of_g, operations=2 * math.prod(case[0]), launches=2),
    )
