"""500 random layers against torch's modules: values, first and second derivatives, running statistics, evaluation."""

import copy
import random

import pytest
import torch
from torch import nn
from torch_activations import torch_module

from ganfast import activations, functional
from ganfast import nn as gnn
from ganfast.ops.conv_bn_act import conv_bn_act


def random_layer(draw):
    """(fused layer, torch's modules in sequence, x), in fp64."""
    transposed, batch_norm = draw.random() < 0.5, draw.random() < 0.5
    kernel, stride = ((draw.randint(1, 5), draw.randint(1, 5)), (draw.randint(1, 3), draw.randint(1, 3)))
    padding = tuple(draw.randint(0, k) for k in kernel)
    activation, bias = draw.choice(list(activations.ROWS)), draw.random() < 0.5
    sizes = draw.choice([1, 2, 3]), draw.choice([1, 2, 3])  # channels
    momentum = draw.choice([0.1, 0.3, None])
    if transposed:
        output_padding = tuple(draw.randint(0, s - 1) for s in stride)
        least = [
            max(1, -(-(2 * p - k - o + 1) // s) + 1) for p, k, o, s in zip(padding, kernel, output_padding, stride)
        ]
        layer = gnn.ConvTransposeBNReLU2d(
            *sizes, kernel, stride, padding, output_padding, bias, momentum=momentum, activation=activation,
            batch_norm=batch_norm,
        )  # fmt: skip
    else:
        least = [max(1, k - 2 * p) for p, k in zip(padding, kernel)]
        layer = gnn.ConvAct2d(
            *sizes, kernel, stride, padding, bias, batch_norm, momentum=momentum, activation=activation
        )
    batch = draw.choice([1, 2, 3])
    x = torch.randn(batch, sizes[0], *(n + draw.randint(0, 4) for n in least), dtype=torch.float64)
    if draw.random() < 0.5:
        layer, x = layer.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    layer = layer.double()
    parts = [layer.conv] if layer.bn is None else [layer.conv, layer.bn]
    return layer, copy.deepcopy(nn.Sequential(*parts, torch_module(activation))), x


def derivatives(layer, x, seed):
    """y, the first derivatives of x and the parameters, and those of the first ones' squares."""
    x = x.clone().requires_grad_()
    y = layer(x)
    leaves = [x, *layer.parameters()]
    first = torch.autograd.grad(y, leaves, seed(y), create_graph=True)
    squares = sum(g.square().sum() for g in first)
    second = torch.autograd.grad(squares, leaves, allow_unused=True, materialize_grads=True)
    return y, first, second


def close(got, wanted):
    """Each within rounding of the largest of its kind: some derivatives behind a batch norm are 0 but for rounding."""
    scale = max(float(w.detach().abs().max()) for w in wanted)
    for a, b in zip(got, wanted):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10 * max(scale, 1))


@pytest.mark.parametrize("block", range(10))
def test_random_layers(block, monkeypatch):
    if block % 2:  # the operators, where a CPU would rather take torch's
        monkeypatch.setattr(functional, "SMALL", 0)
        monkeypatch.setattr(type(conv_bn_act), "is_plain", lambda op, device: False)
    draw = random.Random(block)
    torch.manual_seed(block)
    for _ in range(50):
        layer, torchs, x = random_layer(draw)
        with torch.no_grad():
            shape = torchs[0](x).shape
        trains = layer.bn is not None and shape.numel() > shape[1]
        for training in [True, False] if trains else [False]:
            layer.train(training), torchs.train(training)
            noise = torch.randn(shape, dtype=torch.float64)
            got, wanted = (derivatives(m, x, lambda y: noise) for m in (layer, torchs))  # noqa: B023  called at once
            close([got[0]], [wanted[0]])
            assert got[0].shape == shape
            for a, b in zip(got[1:], wanted[1:]):
                close(a, b)
        for a, b in zip(layer.buffers(), torchs.buffers()):
            torch.testing.assert_close(a, b)
        if layer.bn is not None and not trains:
            with pytest.raises(ValueError, match="value per channel"):
                layer.train()(x)
