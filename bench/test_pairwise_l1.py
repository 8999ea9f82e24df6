"""pairwise_l1, forward and backward, against what a user would write: broadcasting, torch.cdist, compiled broadcasting.

    pytest bench/test_pairwise_l1.py --benchmark-only

Each row of the table is one implementation. `test_ratios` times all of them in turn, so that other work on the machine
meets them alike, and keeps the medians, and those of the ratios of neighbours, in the JSON's extra_info. (Two threads
on two cores that other work wants wait for one another: read it on a quiet machine.)
"""

import statistics
import time

import pytest
import torch

from ganfast import functional

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]
STANDARD = (256, 100, 5)
SHAPES = [(64, 100, 5), STANDARD, (256, 50, 16)]
LARGE = [(1024, 50, 16), (1024, 100, 5)]  # 3.4 and 2 GB by broadcasting: ganfast alone


def broadcast(m):
    return torch.exp(-(m[:, None] - m[None]).abs().sum(-1)).sum(1)


def cdist(m):
    across = m.transpose(0, 1)  # [nk, B, kd]
    return torch.exp(-torch.cdist(across, across, p=1)).sum(-1).t()


IMPLEMENTATIONS = {
    "ganfast": functional.pairwise_l1,
    "cdist": cdist,
    "broadcast": broadcast,
    "compiled broadcast": torch.compile(broadcast),
}


def make_step(implementation, shape, device):
    """A forward and backward with its results, checked against fp64 on a few rows."""
    torch.manual_seed(0)
    m = (torch.randn(shape, device=device) / shape[2]).requires_grad_()
    g = torch.randn(shape[:2], device=device)

    def step():
        o = implementation(m)
        (grad,) = torch.autograd.grad(o, m, g)
        if device == "cuda":
            torch.cuda.synchronize()
        return o, grad

    o, grad = step()
    with torch.no_grad():
        difference = m[:3, None].double() - m[None].double()  # [3, B, nk, kd]
        e = torch.exp(-difference.abs().sum(-1))
        terms = ((g[:3, None] + g[None]).double() * e)[..., None] * difference.sign()
    torch.testing.assert_close(o[:3].double(), e.sum(1), rtol=1e-5, atol=0)
    torch.testing.assert_close(grad[:3].double(), -terms.sum(1), rtol=1e-4, atol=1e-4)
    return step


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_forward_and_backward(benchmark, device, shape, implementation):
    benchmark.group = f"pairwise_l1 {device} {shape}"
    benchmark.pedantic(
        make_step(IMPLEMENTATIONS[implementation], shape, device), rounds=15, iterations=1, warmup_rounds=2
    )


@pytest.mark.parametrize("shape", LARGE, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_large_batches(benchmark, device, shape):
    benchmark.group = f"pairwise_l1 {device} {shape}"
    benchmark.pedantic(make_step(functional.pairwise_l1, shape, device), rounds=10, iterations=1, warmup_rounds=2)


def test_ratios(benchmark):
    """On the CPU at the standard size: 10 times torch.cdist, 8 times the compiled broadcast form, at least."""
    steps = {name: make_step(f, STANDARD, "cpu") for name, f in IMPLEMENTATIONS.items()}
    times = {name: [] for name in steps}
    for _ in range(15):
        for name, step in steps.items():
            step()
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    medians = {name: 1e3 * statistics.median(t) for name, t in times.items()}
    ratios = {name: statistics.median(a / b for a, b in zip(t, times["ganfast"])) for name, t in times.items()}
    benchmark.extra_info.update(
        medians_ms=medians, ratios=ratios, fastest_ms={k: 1e3 * min(t) for k, t in times.items()}
    )
    print({name: f"{medians[name]:.2f} ms, {ratios[name]:.1f}×" for name in steps})
    assert ratios["cdist"] >= 10
    assert ratios["compiled broadcast"] >= 8
    benchmark.pedantic(steps["ganfast"], rounds=15, iterations=1)
