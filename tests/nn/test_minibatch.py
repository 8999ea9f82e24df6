"""Minibatch discrimination and minibatch deviation against loops over the papers' formulas."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ganfast import nn as gnn

# --- MinibatchDiscrimination ------------------------------------------------------------------------------------------


def test_discrimination_appends_the_paper_s_sums():
    layer = gnn.MinibatchDiscrimination(6, 3, 2)
    x = torch.randn(5, 6)
    out = layer(x).detach()
    assert out.shape == (5, 9)
    assert torch.equal(out[:, :6], x)
    m = (x @ layer.T).detach().double().view(5, 3, 2)
    for i in range(5):
        for b in range(3):
            wanted = sum(math.exp(-float((m[i, b] - m[j, b]).abs().sum())) for j in range(5))
            assert abs(float(out[i, 6 + b]) - wanted) < 1e-5


def test_discrimination_separates_a_collapsed_batch_from_a_diverse_one():
    torch.manual_seed(0)
    layer = gnn.MinibatchDiscrimination(64, 20, 5)
    diverse = layer(torch.randn(32, 64))[:, 64:]
    collapsed = layer(torch.randn(1, 64).repeat(32, 1))[:, 64:]
    assert torch.equal(collapsed, torch.full((32, 20), 32.0))
    assert 5 < float(diverse.mean()) < 18  # 1 + 31·e^−1.1 = 11: neither all alike nor all apart


@pytest.mark.parametrize("in_features", [16, 1024])
def test_discrimination_begins_where_there_is_a_gradient(in_features):
    torch.manual_seed(0)
    layer = gnn.MinibatchDiscrimination(in_features, 50, 16)
    assert list(layer.state_dict()) == ["T"]
    assert layer.T.shape == (in_features, 800)
    assert abs(float(layer.T.std()) * 16 * in_features**0.5 - 1) < 0.05
    layer(torch.randn(64, in_features))[:, in_features:].sum().backward()
    assert float(layer.T.grad.abs().mean()) > 1e-3


def test_discrimination_derivatives():
    layer = gnn.MinibatchDiscrimination(3, 2, 2).double()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    t = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def function(x, t):
        return torch.func.functional_call(layer, {"T": t}, (x,))

    assert gradcheck(function, (x, t))
    assert gradgradcheck(function, (x, t))


@pytest.mark.usefixtures("inductor")
def test_discrimination_of_an_empty_batch_in_half_and_compiled():
    layer = gnn.MinibatchDiscrimination(6, 3, 2)
    assert layer(torch.empty(0, 6)).shape == (0, 9)
    x = torch.randn(7, 6)
    wanted = layer(x)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, wanted, rtol=0.03, atol=0.03)
    half = layer.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), wanted, rtol=0.03, atol=0.03)


def test_discrimination_of_bad_input():
    layer = gnn.MinibatchDiscrimination(6, 3, 2)
    with pytest.raises(ValueError, match=r"x: got shape \(2, 5\), needs \[batch, 6\]; flatten it first"):
        layer(torch.randn(2, 5))
    with pytest.raises(ValueError, match=r"x: got shape \(2, 6, 1, 1\)"):
        layer(torch.randn(2, 6, 1, 1))
    with pytest.raises(ValueError, match="kernel_dim: got 0, needs 1 or more"):
        gnn.MinibatchDiscrimination(6, 3, 0)
    with pytest.raises(TypeError, match="num_kernels: got float, needs an integer"):
        gnn.MinibatchDiscrimination(6, 3.0, 2)
    assert repr(layer) == "MinibatchDiscrimination(in_features=6, num_kernels=3, kernel_dim=2)"


# --- MinibatchStddev --------------------------------------------------------------------------------------------------


def by_loops(x, group_size, num_features):
    """The new channels, one number for each sample and feature."""
    batch, channels = x.shape[:2]
    groups = math.ceil(batch / (group_size or batch))
    out = torch.empty(batch, num_features, dtype=torch.float64)
    for k in range(groups):
        members = list(range(k, batch, groups))
        for f in range(num_features):
            run = slice(f * channels // num_features, (f + 1) * channels // num_features)
            deviation = x[members, run].double().var(0, unbiased=False).add(1e-8).sqrt()
            out[members, f] = deviation.mean()
    return out


@pytest.mark.parametrize("num_features", [1, 3])
@pytest.mark.parametrize("group_size", [1, 2, 4, 100, None])
@pytest.mark.parametrize("batch", [1, 2, 5, 8, 13])
def test_stddev_equals_loops(batch, group_size, num_features):
    x = torch.randn(batch, 6, 3, 5)
    out = gnn.MinibatchStddev(group_size, num_features)(x)
    assert out.shape == (batch, 6 + num_features, 3, 5)
    assert torch.equal(out[:, :6], x)
    wanted = by_loops(x, group_size, num_features).float()[:, :, None, None].expand(-1, -1, 3, 5)
    torch.testing.assert_close(out[:, 6:], wanted)


def test_stddev_groups_of_a_multiple_are_the_paper_s():
    x = torch.randn(8, 2, 4, 4)
    groups = x.view(4, 2, 2, 4, 4)  # [group, n, C, H, W]: a group is what shares the second index
    wanted = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3)).repeat(4)
    torch.testing.assert_close(gnn.MinibatchStddev()(x)[:, 2, 0, 0], wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_stddev_gradient_is_finite_where_samples_are_alike(dtype):
    layer = gnn.MinibatchStddev()
    for batch in (1, 4, 6):
        x = torch.full((batch, 2, 3, 3), 0.5, dtype=dtype, requires_grad=True)
        out = layer(x)
        assert float(out[:, 2].max()) < 1.1e-4
        (grad,) = torch.autograd.grad(out[:, 2].float().sum(), x, create_graph=True)
        assert torch.equal(grad, torch.zeros_like(x))
        (second,) = torch.autograd.grad(grad.float().square().sum(), x)
        assert second.isfinite().all()


def test_stddev_of_half_types_is_computed_in_fp32():
    x = (1000 + torch.randn(4, 2, 8, 8)).half()  # squares overflow fp16
    wanted = by_loops(x, 4, 1)[:, 0]
    torch.testing.assert_close(gnn.MinibatchStddev()(x)[:, 2, 0, 0].double(), wanted, rtol=2**-10, atol=0)


def test_stddev_derivatives():
    x = torch.randn(5, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    for layer in (gnn.MinibatchStddev(2), gnn.MinibatchStddev(None, 2)):
        assert gradcheck(layer, (x,))
        assert gradgradcheck(layer, (x,))


@pytest.mark.usefixtures("inductor")
def test_stddev_layouts_empty_batch_and_compiled():
    layer = gnn.MinibatchStddev(4, 2)
    x = torch.randn(6, 4, 3, 5)
    wanted = layer(x)
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), wanted)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), wanted)
    assert layer(torch.empty(0, 4, 3, 5)).shape == (0, 6, 3, 5)


def test_stddev_of_bad_input():
    with pytest.raises(ValueError, match=r"x: got shape \(2, 4\), needs \[batch, channels, height, width\]"):
        gnn.MinibatchStddev()(torch.randn(2, 4))
    with pytest.raises(ValueError, match="x: got 4 channels, needs a multiple of num_features=3"):
        gnn.MinibatchStddev(4, 3)(torch.randn(2, 4, 3, 3))
    with pytest.raises(ValueError, match="group_size: got 0, needs 1 or more"):
        gnn.MinibatchStddev(0)
    with pytest.raises(TypeError, match="num_features: got NoneType, needs an integer"):
        gnn.MinibatchStddev(4, None)
    assert repr(gnn.MinibatchStddev(None)) == "MinibatchStddev(group_size=None, num_features=1)"
