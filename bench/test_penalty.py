"""A critic's WGAN-GP step: double backward, compiled nested torch.func.grad, the drop-in penalty and the merged step.

pytest bench/test_penalty.py --benchmark-only

Each is taken in turns, so that a busy machine slows all alike; the figures are medians of ratios of neighbours. Memory
is the largest sum of live CPU tensors, as torch's profiler counts it.
"""

import itertools
import statistics
import time

import frame
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad

from ganfast import penalty
from ganfast.models.resnet import Discriminator

pytestmark = pytest.mark.full  # it compiles for minutes, and its bars want a quiet machine; test_steps.py has the rows
ROUNDS = 7


def conv_critic(width=64):
    widths = (3, width, 2 * width, 4 * width, 8 * width)
    layers = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4), nn.Flatten())


CRITICS = {"conv": (conv_critic, (32, 3, 64, 64)), "resnet": (lambda: Discriminator(32, 3, 64), (16, 3, 32, 32))}


def loss(scores, gradient, real, fake, eps):
    eps = eps[:, None, None, None]
    g = gradient(eps * real + (1 - eps) * fake)
    return scores(fake).mean() - scores(real).mean() + 10 * (g.flatten(1).norm(dim=1) - 1).square().mean()


def candidates(critic, data):
    real, fake, eps = data

    def autograd_gradient(x):
        x = x.requires_grad_()
        return torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0]

    def eager():
        loss(critic, autograd_gradient, real, fake, eps).backward()

    def drop_in():
        value = penalty.gradient_penalty(critic, real, fake, eps=eps, strict=True)
        (critic(fake).mean() - critic(real).mean() + value).backward()

    def step():
        penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)

    parameters = dict(critic.named_parameters())

    def functional_loss(parameters):
        def scores(x):
            return functional_call(critic, parameters, (x,))

        return loss(scores, grad(lambda x: scores(x).sum()), real, fake, eps)

    compiled = {
        "step": torch.compile(lambda: penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True), fullgraph=True),
        "func": torch.compile(grad(functional_loss)),
    }

    def compiled_func():
        for name, g in compiled["func"]({k: v.detach() for k, v in parameters.items()}).items():
            parameters[name].grad = g

    return {"eager": eager, "drop_in": drop_in, "step": step, "compiled step": compiled["step"],
            "compiled func": compiled_func}  # fmt: skip


def gradients(critic, function):
    critic.zero_grad()
    function()
    return torch.cat([p.grad.flatten() for p in critic.parameters()])


def seconds(critic, function):
    critic.zero_grad()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak(critic, function):
    """Bytes alive at once during the function."""
    critic.zero_grad()
    return frame.peak_memory(function, (), "cpu")


def prepared(name, chosen):
    torch.manual_seed(0)
    make, shape = CRITICS[name]
    critic = make().to(memory_format=torch.channels_last)
    data = *(torch.randn(shape).to(memory_format=torch.channels_last) for _ in range(2)), torch.rand(shape[0])
    functions = {k: f for k, f in candidates(critic, data).items() if k in chosen}
    wanted = gradients(critic, functions["eager"])
    for other, function in functions.items():
        assert float((gradients(critic, function) - wanted).norm() / wanted.norm()) < 1e-4, other
    return critic, functions


BARS = {
    ("conv", "eager over step"): 1.25,
    ("conv", "eager over drop_in"): 1.0,
    ("conv", "eager over compiled step"): 1.4,
    ("conv", "compiled func over compiled step"): 1.5,
    ("resnet", "eager over step"): 1.15,
    ("resnet", "eager over drop_in"): 1.0,
}


@pytest.mark.parametrize("name, compiled", [("conv", False), ("resnet", False), ("conv", True)])
def test_a_step_beats_double_backward(benchmark, name, compiled):
    chosen = ["eager", "compiled step", "compiled func"] if compiled else ["eager", "drop_in", "step"]
    critic, functions = prepared(name, chosen)

    def ratios():
        times = [{k: seconds(critic, f) for k, f in functions.items()} for _ in range(ROUNDS)]
        pairs = [pair for critic_name, pair in BARS if critic_name == name]
        pairs = [pair for pair in pairs if all(k in functions for k in pair.split(" over "))]
        return {p: statistics.median(t[p.split(" over ")[0]] / t[p.split(" over ")[1]] for t in times) for p in pairs}

    found = benchmark.pedantic(ratios)
    benchmark.extra_info.update(found)
    for pair, ratio in found.items():
        assert ratio >= BARS[name, pair], f"{pair}: {ratio:.2f}"


@pytest.mark.parametrize("name", CRITICS)
def test_a_step_takes_no_more_memory(benchmark, name):
    critic, functions = prepared(name, ["eager", "step"])
    sizes = benchmark.pedantic(lambda: {k: peak(critic, f) for k, f in functions.items()})
    benchmark.extra_info.update({k: size / 2**20 for k, size in sizes.items()})
    assert 0 < sizes["step"] <= sizes["eager"]
