"""The layers against torch's modules in sequence: numbers, gradients, statistics, keys, initialisation."""

import copy

import pytest
import torch
from torch import nn
from torch_activations import torch_module

from ganfast import activations, functional
from ganfast import nn as gnn


def up(activation="relu", **more):
    return gnn.ConvTransposeBNReLU2d(3, 5, 4, 2, 1, activation=activation, **more)


def down(activation="leaky_relu", **more):
    return gnn.ConvAct2d(3, 5, 4, 2, 1, activation=activation, **more)


@pytest.mark.parametrize("activation", activations.ROWS)
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("make", [up, down])
def test_equals_torch_modules(make, batch_norm, activation):
    layer = make(activation, batch_norm=batch_norm).double()
    parts = copy.deepcopy([layer.conv, layer.bn or nn.Identity()])
    torch_layer = nn.Sequential(*parts, torch_module(activation))
    for training in (True, False):
        layer.train(training)
        torch_layer.train(training)
        x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        out, wanted = layer(a), torch_layer(b)
        torch.testing.assert_close(out, wanted)
        seed = torch.randn_like(out)
        out.backward(seed)
        wanted.backward(seed)
        torch.testing.assert_close(a.grad, b.grad)
    mine = [*layer.parameters(), *layer.buffers()]
    theirs = [*torch_layer.parameters(), *torch_layer.buffers()]
    assert len(mine) == len(theirs)
    for p, q in zip(mine, theirs):
        torch.testing.assert_close(p, q)
        if p.requires_grad:
            torch.testing.assert_close(p.grad, q.grad)


def test_state_dict_keys_are_torchs_under_conv_and_bn():
    bn = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert list(up().state_dict()) == ["conv.weight", *(f"bn.{k}" for k in bn)]
    assert list(down().state_dict()) == ["conv.weight", "conv.bias"]
    assert list(down(batch_norm=True).state_dict()) == ["conv.weight", *(f"bn.{k}" for k in bn)]


def test_initialised_as_torch():
    torch.manual_seed(5)
    wanted = nn.ConvTranspose2d(3, 5, 4, 2, 1, bias=False)
    torch.manual_seed(5)
    assert torch.equal(up().conv.weight, wanted.weight)


def test_spectral_norm_reaches_the_weight():
    layer = down()
    x = torch.randn(2, 3, 6, 6)
    before = layer(x)
    nn.utils.parametrizations.spectral_norm(layer.conv)
    layer.eval()
    torch.testing.assert_close(layer(x), nn.functional.leaky_relu(layer.conv(x), 0.2))
    assert not torch.allclose(layer(x), before)


@pytest.mark.parametrize("make", [up, down])
def test_an_unknown_activation_is_named(make):
    with pytest.raises(ValueError, match=r"activation: got 'ulu', needs one of 'relu', 'leaky_relu', 'tanh'"):
        make("ulu")


def test_loss_module():
    real, fake = torch.randn(6, 1), torch.randn(6, 1)
    loss = gnn.BCEWithLogitsGANLoss(real_target=0.9)
    torch.testing.assert_close(loss(real, fake), functional.sigmoid_bce(real, fake, 0.9, 0.0))
    torch.testing.assert_close(loss(fake), functional.sigmoid_bce(fake, None, 0.9))
    assert repr(loss) == "BCEWithLogitsGANLoss(real_target=0.9, fake_target=0.0)"
