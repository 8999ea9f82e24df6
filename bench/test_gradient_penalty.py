"""Interpolation, norms, penalty and seed of a WGAN-GP step against the plain torch composition of each.

pytest bench/test_gradient_penalty.py --benchmark-only

The composition is what a user writes: ε·x + (1 − ε)·x̃, norm over flat samples, the mean, and autograd for ∂P/∂g.
"""

import statistics
import time

import pytest
import torch

from ganfast import functional

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]
SHAPES = [(64, 3, 32, 32), (64, 3, 64, 64), (16, 3, 256, 256)]
NAMES = ["x".join(map(str, shape)) for shape in SHAPES]


def ganfast_step(real, fake, g):
    x = functional.interpolate(real, fake)
    return x, *functional.gradient_penalty_terms(g)


def torch_step(real, fake, g):
    epsilon = torch.rand(real.shape[0], 1, 1, 1, device=real.device)
    x = epsilon * real + (1 - epsilon) * fake
    leaf = g.detach().requires_grad_()
    norms = leaf.flatten(1).norm(2, dim=1)
    penalty = 10 * (norms - 1).square().mean()
    (seed,) = torch.autograd.grad(penalty, leaf)
    return x, penalty.detach(), norms.detach(), seed


def compiled_step(real, fake, g):
    return COMPILED(real, fake, g)


def formula_step(real, fake, g):
    """The seed by its formula: torch.compile does not trace autograd.grad by default."""
    epsilon = torch.rand(real.shape[0], 1, 1, 1, device=real.device)
    x = epsilon * real + (1 - epsilon) * fake
    norms = g.flatten(1).norm(2, dim=1)
    factor = 20 / g.shape[0] * (norms - 1) / norms
    return x, 10 * (norms - 1).square().mean(), norms, factor[:, None, None, None] * g


COMPILED = torch.compile(formula_step, dynamic=False)


def backward_ganfast(g):
    (dg,) = torch.autograd.grad(functional.gradient_penalty(g), g)
    return dg


def backward_torch(g):
    (dg,) = torch.autograd.grad(10 * (g.flatten(1).norm(2, dim=1) - 1).square().mean(), g)
    return dg


def gradients(shape, device):
    g = torch.randn(shape, device=device)
    return g / g.flatten(1).norm(dim=1)[:, None, None, None] * (0.5 + torch.rand(shape[0], 1, 1, 1, device=device))


def synchronised(function, device):
    def run(*args):
        result = function(*args)
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    return run


def check(real, fake, g, x, penalty, norms, seed):
    """The results of a step against fp64; one ε per sample."""
    x, real, fake, wide = (t.double() for t in (x, real, fake, g))
    epsilon = ((x - fake) / (real - fake)).flatten(1).nanmedian(1).values[:, None, None, None]
    torch.testing.assert_close(x, epsilon * real + (1 - epsilon) * fake, rtol=1e-5, atol=1e-5)
    truth = wide.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms.double(), truth, rtol=1e-5, atol=0)
    torch.testing.assert_close(penalty.double(), 10 * (truth - 1).square().mean(), rtol=1e-4, atol=1e-6)
    wanted = 20 / g.shape[0] * ((truth - 1) / truth)[:, None, None, None] * wide
    assert float((seed.double() - wanted).norm() / wanted.norm()) < 1e-5


@pytest.mark.parametrize("step", [ganfast_step, torch_step, compiled_step], ids=["ganfast", "torch", "compiled"])
@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
@pytest.mark.parametrize("device", DEVICES)
def test_step(benchmark, device, shape, step):
    benchmark.group = f"interpolate + gradient_penalty {device} {'x'.join(map(str, shape))}"
    args = torch.randn(shape, device=device), torch.randn(shape, device=device), gradients(shape, device)
    run = synchronised(step, device)
    check(*args, *run(*args))
    benchmark(run, *args)


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
@pytest.mark.parametrize("device", DEVICES)
def test_floor(benchmark, device, shape):
    """The bytes of a step and nothing else: two tensors read and one written, one read and one written."""
    benchmark.group = f"interpolate + gradient_penalty {device} {'x'.join(map(str, shape))}"
    real, fake, g = (torch.randn(shape, device=device) for _ in range(3))
    run = synchronised(lambda: (real + fake, g.clone()), device)
    total, copy = run()
    assert torch.equal(copy, g) and torch.equal(total - fake, (real + fake) - fake)
    benchmark(run)


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_takes_half_the_time_of_the_composition(benchmark, device):
    """Taken in turns, each first half of the time, so that a busy machine slows both; median ratio of neighbours."""
    shape = (64, 3, 64, 64)
    args = torch.randn(shape, device=device), torch.randn(shape, device=device), gradients(shape, device)
    ours, theirs = synchronised(ganfast_step, device), synchronised(torch_step, device)
    check(*args, *ours(*args))
    check(*args, *theirs(*args))

    def seconds(run):
        start = time.perf_counter()
        run(*args)
        return time.perf_counter() - start

    def median_ratio():
        ratios = [seconds(theirs) / seconds(ours) for _ in range(100)]
        return statistics.median(ratios + [1 / (seconds(ours) / seconds(theirs)) for _ in range(100)])

    ratio = benchmark.pedantic(median_ratio)
    benchmark.extra_info["torch over ganfast"] = ratio
    assert ratio >= 2


@pytest.mark.parametrize("step", [backward_ganfast, backward_torch], ids=["ganfast", "torch"])
@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
@pytest.mark.parametrize("device", DEVICES)
def test_penalty_and_backward(benchmark, device, shape, step):
    benchmark.group = f"gradient_penalty, forward and backward {device} {'x'.join(map(str, shape))}"
    g = gradients(shape, device).requires_grad_()
    run = synchronised(step, device)
    wanted = backward_torch(g.detach().double().requires_grad_())
    assert float((run(g).double() - wanted).norm() / wanted.norm()) < 1e-5
    benchmark(run, g)
