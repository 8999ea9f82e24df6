"""Batch normalisation with ReLU, training, forward and backward, against torch's two calls, eager and compiled.

pytest bench/test_batch_norm_act.py --benchmark-only

The floor is the bytes and nothing else: y read and a written; y and da read and dy written.
"""

import statistics
import time

import pytest
import torch
import torch.nn.functional as F

from ganfast import functional

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]
SHAPES = [(64, 64, 32, 32), (64, 128, 16, 16), (64, 256, 8, 8), (64, 512, 4, 4)]
NAMES = ["x".join(map(str, shape)) for shape in SHAPES]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def torch_composition(y, mean, var, weight, bias):
    return F.relu(F.batch_norm(y, mean, var, weight, bias, True))


FORWARDS = {
    "ganfast": lambda *args: functional.batch_norm_act(*args, training=True),
    "torch": torch_composition,
    "compiled": torch.compile(torch_composition, dynamic=False),
}


def make(shape, layout, device):
    """y, running statistics, weight and bias; da."""
    y, da = (torch.randn(shape, device=device).to(memory_format=LAYOUTS[layout]) for _ in range(2))
    channels = [torch.rand(shape[1], device=device) + 0.5 for _ in range(4)]
    return [y.requires_grad_(), *channels[:2], *(v.requires_grad_() for v in channels[2:])], da


def step(name, args, da):
    a = FORWARDS[name](*args)
    grads = torch.autograd.grad(a, (args[0], *args[3:]), da)
    if da.is_cuda:
        torch.cuda.synchronize()
    return a.detach(), *grads


def check(name, args, da):
    """Against fp64; where z is 0 but for rounding, relu's slope may be the other one."""
    found = step(name, args, da)
    wide = [v.detach().double().requires_grad_(v.requires_grad) for v in args]
    for got, wanted in zip(found, step("torch", wide, da.double())):
        assert float((got.double() - wanted).norm() / wanted.norm()) < 1e-3


@pytest.mark.parametrize("name", FORWARDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
@pytest.mark.parametrize("device", DEVICES)
def test_step(benchmark, device, shape, layout, name):
    benchmark.group = f"batch_norm_act {device} {'x'.join(map(str, shape))} {layout}"
    args, da = make(shape, layout, device)
    check(name, args, da)
    benchmark(step, name, args, da)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
@pytest.mark.parametrize("device", DEVICES)
def test_floor(benchmark, device, shape, layout):
    benchmark.group = f"batch_norm_act {device} {'x'.join(map(str, shape))} {layout}"
    (y, *_), da = make(shape, layout, device)
    y = y.detach()

    def run():
        result = y.clone(), y + da
        if y.is_cuda:
            torch.cuda.synchronize()
        return result

    assert torch.equal(run()[0], y)
    benchmark(run)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_ratios(benchmark, shape, layout):
    """torch over ganfast on the CPU, taken in turns; median of neighbours."""
    args, da = make(shape, layout, "cpu")
    check("ganfast", args, da)

    def seconds(name):
        start = time.perf_counter()
        step(name, args, da)
        return time.perf_counter() - start

    ratio = benchmark.pedantic(lambda: statistics.median(seconds("torch") / seconds("ganfast") for _ in range(40)))
    benchmark.extra_info["torch over ganfast"] = ratio
    print(f"\n{'x'.join(map(str, shape))} {layout}: torch takes {ratio:.2f} times as long")
