"""Layers of DCGAN-64 on conv_bn_act and batch_norm_act against torch's modules, eager and compiled, channels_last.

    pytest bench/test_conv_bn_act.py --benchmark-only

test_steps.py has the whole steps.
"""

import copy
import functools

import calibrate
import frame
import nets
import pytest
import torch
from frame import PLACES, Work
from torch import nn

from ganfast import nn as gnn

BATCH = {"cpu": 32, "cuda": 128}
# the layers of DCGAN-64 at width 64: (layer, channels and pixels that go in)
LAYERS = {
    "G1": (lambda: gnn.ConvTransposeBNReLU2d(100, 512, 4), 100, 1),
    "G2": (lambda: gnn.ConvTransposeBNReLU2d(512, 256, 4, 2, 1), 512, 4),
    "G3": (lambda: gnn.ConvTransposeBNReLU2d(256, 128, 4, 2, 1), 256, 8),
    "G4": (lambda: gnn.ConvTransposeBNReLU2d(128, 64, 4, 2, 1), 128, 16),
    "G5": (
        lambda: gnn.ConvTransposeBNReLU2d(64, 3, 4, 2, 1, bias=True, batch_norm=False, activation="tanh"), 64, 32
    ),
    "D1": (lambda: gnn.ConvAct2d(3, 64, 4, 2, 1), 3, 64),
    "D2": (lambda: gnn.ConvAct2d(64, 128, 4, 2, 1, batch_norm=True), 64, 32),
    "D4": (lambda: gnn.ConvAct2d(256, 512, 4, 2, 1, batch_norm=True), 256, 8),
    "critic": (lambda: gnn.ConvAct2d(128, 256, 4, 2, 1), 128, 16),
}  # fmt: skip
QUICK = ("G3", "D2")
MODULES = {"relu": nn.ReLU, "leaky_relu": lambda: nn.LeakyReLU(0.2), "tanh": nn.Tanh, None: nn.Identity}


def plain(layer):
    """torch's modules with a copy of the layer's parameters."""
    parts = [layer.conv] if layer.bn is None else [layer.conv, layer.bn]
    return copy.deepcopy(nn.Sequential(*parts, MODULES[layer.activation]()))


ROWS = {
    "ganfast": lambda layer: layer,
    "torch": plain,
    "compiled": lambda layer: torch.compile(plain(layer), dynamic=False),
}


def training(module, precision, x, seed):
    """Forward and backward, as a training loop has them."""
    leaves = [x.detach().requires_grad_(), *module.parameters()]
    for leaf in leaves:
        leaf.grad = None
    y = through(module, precision, leaves[0])
    y.backward(seed)
    return y.detach(), *(leaf.grad for leaf in leaves)


def evaluation(module, precision, x, seed):
    """Images for show: ganfast folds batch normalisation into the weights."""
    with torch.no_grad():
        return (through(module, precision, x),)


def penalised(module, precision, x, seed):
    """Double backward: the weights' gradients of Σ dx²."""
    x = x.detach().requires_grad_()
    (dx,) = torch.autograd.grad(through(module, precision, x), x, seed, create_graph=True)
    # no bias: a critic's gradient does not depend on it
    return dx.detach(), *torch.autograd.grad(dx.float().square().sum(), module.parameters(), allow_unused=True)[:1]


def through(module, precision, x):
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return module(x)


@pytest.fixture(autouse=True)
def exact_fp32():
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


# an output within rounding of 0 has another sign in fp64: one of 2e6 turns a gradient by 7e-4
BOUNDS = {"fp32": 5e-3, "bf16": 5e-2}
TIMES = {training: 3, evaluation: 1, penalised: 4}  # passes of a convolution over the batch


@pytest.mark.parametrize("row", ["ganfast", "torch", *frame.in_full("compiled")])
@pytest.mark.parametrize("mode", [training, *frame.in_full(evaluation, penalised)], ids=lambda mode: mode.__name__)
@pytest.mark.parametrize("precision", ["fp32", *frame.in_full("bf16")])
@pytest.mark.parametrize("layer", [*QUICK, *frame.in_full(*(name for name in LAYERS if name not in QUICK))])
@pytest.mark.parametrize("place", PLACES)
def test_layer(measure, place, layer, precision, mode, row):
    if mode is penalised and (layer != "critic" or row == "compiled"):
        pytest.skip("a penalty is a critic's; torch.compile has no double backward")
    if place == "cpu" and precision == "bf16" and mode is not training:
        pytest.skip("the training in bf16 is enough of a CPU")
    make, channels, pixels = LAYERS[layer]
    batch = BATCH[measure.device]
    ours = make().to(measure.device, memory_format=torch.channels_last).train(mode is not evaluation)
    truth = plain(ours).double()
    steps = {name: functools.partial(mode, of(ours), precision) for name, of in ROWS.items()}

    def inputs():
        x = torch.randn(batch, channels, pixels, pixels, device=measure.device)
        x = x.to(calibrate.DTYPES[precision], memory_format=torch.channels_last)
        with torch.no_grad():
            return x, torch.randn_like(through(plain(ours), precision, x))

    check = frame.close(BOUNDS[precision], functools.partial(mode, truth, "fp64"))
    operations, numbers, parameters = nets.cost(plain(ours), torch.empty(batch, channels, pixels, pixels))
    times, item = TIMES[mode], calibrate.DTYPES[precision].itemsize
    work = Work(
        bytes=times * numbers * item + 8 * parameters, operations=times * operations, dtype=precision, launches=times
    )
    measure(steps, inputs, check, work)
