"""Instance normalisation of one sample, whose gradients torch 2.13 gets wrong on a CPU."""

import pytest
import torch
from torch import nn

from ganfast import fuse
from ganfast import nn as gnn

ORDERS = {
    "contiguous": lambda g: g,
    "channels_last": lambda g: g.contiguous(memory_format=torch.channels_last),  # wrong of F.instance_norm
    "rows": lambda g: g.flatten(2).mT.contiguous().mT.unflatten(2, g.shape[2:]),  # of [1, H·W, C]: of F.batch_norm
}


def by_hand(x):
    y = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    return nn.functional.leaky_relu(y, 0.2)


def fused():
    model = nn.Sequential(nn.InstanceNorm2d(8), nn.LeakyReLU(0.2))
    fuse(model)
    return model


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [4, 40])
@pytest.mark.parametrize("make", [fused, lambda: gnn.InstanceNormAct2d(8, activation="leaky_relu")])
def test_its_gradient_does_not_depend_on_how_the_cotangent_lies(make, size, order):
    x, cotangent = torch.randn(2, 1, 8, size, size)
    leaf, wide = x.clone().requires_grad_(), x.double().requires_grad_()
    (found,) = torch.autograd.grad(make()(leaf), leaf, ORDERS[order](cotangent))
    (wanted,) = torch.autograd.grad(by_hand(wide), wide, cotangent.double())
    assert (found - wanted).norm() < 1e-5 * wanted.norm()
