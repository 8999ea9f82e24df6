"""Layers and the DCGAN-64 step on conv_link and batch_norm_act against torch's modules, eager and compiled.

    pytest bench/test_conv_link.py --benchmark-only

Each row is one implementation of forward and backward in training, channels_last, checked against fp64 before it is
timed. The ratio tests take the implementations in turns, so that other work on the machine meets them alike.
"""

import copy
import statistics
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ganfast import nn as gnn
from ganfast.models import dcgan

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]
BATCH = {"cpu": 32, "cuda": 128}

# the layers of DCGAN-64 at width 64: (layer, channels and pixels that go in)
LAYERS = {
    "G1 100→512 1×1": (lambda: gnn.ConvTransposeBNReLU2d(100, 512, 4), 100, 1),
    "G2 512→256 4×4": (lambda: gnn.ConvTransposeBNReLU2d(512, 256, 4, 2, 1), 512, 4),
    "G3 256→128 8×8": (lambda: gnn.ConvTransposeBNReLU2d(256, 128, 4, 2, 1), 256, 8),
    "G4 128→64 16×16": (lambda: gnn.ConvTransposeBNReLU2d(128, 64, 4, 2, 1), 128, 16),
    "G5 64→3 32×32": (
        lambda: gnn.ConvTransposeBNReLU2d(64, 3, 4, 2, 1, bias=True, batch_norm=False, activation="tanh"), 64, 32
    ),
    "D1 3→64 64×64": (lambda: gnn.ConvAct2d(3, 64, 4, 2, 1), 3, 64),
    "D2 64→128 32×32": (lambda: gnn.ConvAct2d(64, 128, 4, 2, 1, batch_norm=True), 64, 32),
    "D4 256→512 8×8": (lambda: gnn.ConvAct2d(256, 512, 4, 2, 1, batch_norm=True), 256, 8),
    "critic 128→256 16×16": (lambda: gnn.ConvAct2d(128, 256, 4, 2, 1), 128, 16),
}  # fmt: skip
MODULES = {"relu": nn.ReLU, "leaky_relu": lambda: nn.LeakyReLU(0.2), "tanh": nn.Tanh, None: nn.Identity}


def plain(layer):
    """torch's modules with a copy of the layer's parameters."""
    parts = [layer.conv] if layer.bn is None else [layer.conv, layer.bn]
    return copy.deepcopy(nn.Sequential(*parts, MODULES[layer.activation]()))


def torch_network(network):
    return nn.Sequential(*(plain(layer) for layer in network.layers))


def compiled(layer):
    return torch.compile(plain(layer), dynamic=False)


IMPLEMENTATIONS = {"ganfast": lambda layer: layer, "torch": plain, "compiled": compiled}


def gradients(leaves, y, seed=None):
    """As a training loop gets them."""
    for leaf in leaves:
        leaf.grad = None
    y.backward(seed)
    if y.is_cuda:
        torch.cuda.synchronize()
    return [leaf.grad for leaf in leaves]


def step_of(module, x, seed):
    """Forward and backward with its results."""
    leaves = [x, *module.parameters()]

    def step():
        y = module(x)
        return y.detach(), *gradients(leaves, y, seed)

    return step


def layer_steps(name, device):
    """{implementation: step}, each checked against fp64."""
    torch.manual_seed(0)
    make, channels, pixels = LAYERS[name]
    layer = make().to(device, memory_format=torch.channels_last)
    x = torch.randn(BATCH[device], channels, pixels, pixels, device=device)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    truth = plain(layer).double()
    seed = torch.randn_like(layer(x))
    wanted = step_of(truth, x.detach().double().requires_grad_(), seed.double())()
    steps = {}
    tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    for implementation, of in IMPLEMENTATIONS.items():
        step = steps[implementation] = step_of(of(layer), x, seed)
        for got, true in zip(step(), wanted):
            # an output within rounding of 0 has another sign in fp64: one of 2e6 turns a gradient by 7e-4
            assert (got.double() - true).norm() <= 5e-3 * true.norm(), implementation
    torch.backends.cudnn.allow_tf32 = tf32
    return steps


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("device", DEVICES)
def test_layer(benchmark, device, name, implementation):
    benchmark.group = f"layer {name}, forward and backward, {device}"
    benchmark.pedantic(layer_steps(name, device)[implementation], rounds=10, iterations=1, warmup_rounds=2)


def networks():
    """The two networks of DCGAN-64 at width 64 on ganfast's layers, and the same on torch's."""
    torch.manual_seed(0)
    pair = dcgan.Generator(64, 3, 100, 64), dcgan.Discriminator(64, 3, 64)
    return pair, tuple(torch_network(network) for network in pair)


def gan_step(generator, discriminator, z, real):
    """Losses and gradients of one step of the original game; the fakes serve both updates."""
    fake = generator(z)
    logits = discriminator(real), discriminator(fake.detach())
    loss_d = F.softplus(-logits[0]).mean() + F.softplus(logits[1]).mean()
    d_gradients = gradients(list(discriminator.parameters()), loss_d)
    discriminator.requires_grad_(False)
    loss_g = F.softplus(-discriminator(fake)).mean()
    g_gradients = gradients(list(generator.parameters()), loss_g)
    discriminator.requires_grad_(True)
    return loss_d.detach(), loss_g.detach(), *d_gradients, *g_gradients


def critic_penalty(critic, x):
    """Gradients of a WGAN-GP penalty."""
    x = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    penalty = (g.flatten(1).norm(dim=1) - 1).square().mean()
    found = gradients(list(critic.parameters()), penalty)
    return penalty.detach(), *(f for f in found[::2])  # of the weights: piecewise linear, so the biases have none


def ratio(benchmark, ours, theirs, rounds):
    """Both in turns after a check that they agree; the median of theirs over ours of neighbours."""
    for a, b in zip(ours(), theirs()):
        assert (a - b).norm() <= 1e-2 * b.norm() + 1e-5  # fp32 through eight batch normalisations and back

    def seconds(run):
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    median = statistics.median(seconds(theirs) / seconds(ours) for _ in range(rounds))
    benchmark.extra_info["torch over ganfast"] = median
    print(f"torch's modules take {median:.3f} times the time of ganfast's")
    benchmark.pedantic(ours, rounds=3, iterations=1)
    return median


@pytest.mark.parametrize("device", DEVICES)
def test_a_dcgan_step_is_never_slower(benchmark, device):
    ours, theirs = networks()
    for network in (*ours, *theirs):
        network.to(device, memory_format=torch.channels_last)
    z = torch.randn(BATCH[device], 100, device=device)
    real = torch.randn(BATCH[device], 3, 64, 64, device=device).contiguous(memory_format=torch.channels_last)
    median = ratio(
        benchmark,
        lambda: gan_step(*ours, z, real),
        lambda: gan_step(*theirs, z[:, :, None, None], real),
        rounds=9,
    )
    assert median >= 0.98  # 1 but for the noise of the clock


@pytest.mark.parametrize("device", DEVICES)
def test_a_penalty_is_faster(benchmark, device):
    """Five convolutions fewer than torch's: no second derivative of LeakyReLU is convolved."""
    torch.manual_seed(0)
    critic = dcgan.Discriminator(64, 3, 64, batch_norm=False).to(device, memory_format=torch.channels_last)
    theirs = torch_network(critic)
    x = torch.randn(BATCH[device], 3, 64, 64, device=device).contiguous(memory_format=torch.channels_last)
    assert ratio(benchmark, lambda: critic_penalty(critic, x), lambda: critic_penalty(theirs, x), rounds=7) > 1.1


def test_evaluation_of_the_generator(benchmark):
    """Images for show: batch normalisation is folded into the weights."""
    (generator, _), (theirs, _) = networks()
    for network in (generator, theirs):
        network.eval().to(memory_format=torch.channels_last)
    z = torch.randn(64, 100)
    with torch.no_grad():
        assert ratio(benchmark, lambda: [generator(z)], lambda: [theirs(z[:, :, None, None])], rounds=9) >= 0.98
