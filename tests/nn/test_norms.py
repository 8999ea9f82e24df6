"""Normalisations with their activation against compositions of torch's functions."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_activations import torch_module

from ganfast import functional
from ganfast import nn as gnn
from ganfast.nn import norms

BOUNDS = {torch.float64: {"rtol": 1e-9, "atol": 1e-10}, torch.float32: {"rtol": 2e-4, "atol": 2e-5}}
N, C = 3, 4


@pytest.fixture(params=["operator", "torch"], autouse=True)
def way(request, monkeypatch):
    """By the operator, and by torch's functions, which are taken where they are faster."""
    monkeypatch.setattr(norms, "prefers_torch", lambda x: request.param == "torch")


def results(function, tensors, double=False):
    """The output, its gradients, and those of a penalty on them."""
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    out = function(*leaves)
    seed = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).sin().view_as(out)
    found = torch.autograd.grad(out, leaves, seed, create_graph=double)
    if double:
        found = torch.autograd.grad(sum(g.square().sum() for g in found), leaves, materialize_grads=True)
    return [out.detach(), *found]


def assert_same(function, wanted, tensors):
    bounds = BOUNDS[tensors[0].dtype]
    for double in (False, True):
        for a, b in zip(results(function, tensors, double), results(wanted, tensors, double)):
            scale = b.abs().max().clamp_min(1.0)
            torch.testing.assert_close(a / scale, b / scale, **bounds)


def image(dtype=torch.float64, last=False, side=5):
    x = 2 * torch.randn(N, C, side, side, dtype=dtype) + 1
    return x.contiguous(memory_format=torch.channels_last) if last else x


def with_weights(layer, names):
    """function(x, *parameters) of a layer and the values of these parameters."""

    def function(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    return function


# --- InstanceNormAct2d ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", None])
def test_instance_norm(activation, affine, dtype):
    layer = gnn.InstanceNormAct2d(C, affine=affine, activation=activation).to(dtype)
    plain = nn.InstanceNorm2d(C, affine=affine).to(dtype)
    assert list(layer.state_dict()) == list(plain.state_dict()) and repr(activation) in repr(layer)
    if affine:
        nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    plain.load_state_dict(layer.state_dict())
    act, names = torch_module(activation), [name for name, _ in plain.named_parameters()]
    theirs = with_weights(nn.Sequential(plain, act), [f"0.{name}" for name in names])
    for last in (False, True):
        tensors = [image(dtype, last), *(p.detach() for p in plain.parameters())]
        assert_same(with_weights(layer, names), theirs, tensors)
    one = image(dtype)[0]
    torch.testing.assert_close(layer(one), act(plain(one)))


@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_statistics_are_torchs(momentum):
    layer = gnn.InstanceNormAct2d(C, momentum=momentum, affine=True, track_running_stats=True).double()
    plain = nn.InstanceNorm2d(C, momentum=momentum, affine=True, track_running_stats=True).double()
    for training in (True, True, False):
        x = image()
        torch.testing.assert_close(layer.train(training)(x), plain.train(training)(x).relu())
        for a, b in zip(layer.buffers(), plain.buffers()):
            torch.testing.assert_close(a, b)


def test_what_has_no_statistics_is_refused():
    layer = gnn.InstanceNormAct2d(C)
    with pytest.raises(ValueError, match=r"x: got shape \(3, 4, 1, 1\), needs more than one pixel"):
        layer(image(side=1))
    with pytest.raises(ValueError, match=r"x: got shape \(3, 5, 2, 2\), needs \[N, 4, H, W\]"):
        layer(torch.randn(3, 5, 2, 2))
    with pytest.raises(ValueError, match="activation"):
        gnn.InstanceNormAct2d(C, activation="swash")


# --- ConditionalBatchNormAct2d ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", BOUNDS)
def test_conditional_batch_norm(dtype):
    layer = gnn.ConditionalBatchNormAct2d(C, 6, momentum=0.3, activation="leaky_relu").to(dtype)
    nn.init.normal_(layer.gain.weight), nn.init.normal_(layer.shift.weight)
    plain, y = nn.BatchNorm2d(C, momentum=0.3, affine=False).to(dtype), torch.tensor([5, 0, 5])
    assert list(layer.state_dict()) == [*plain.state_dict(), "gain.weight", "shift.weight"]

    def ours(x, gain, shift):
        names = {"gain.weight": gain, "shift.weight": shift}
        return torch.func.functional_call(layer, names, (x, y))

    def theirs(x, gain, shift):
        return F.leaky_relu(plain(x) * gain[y][:, :, None, None] + shift[y][:, :, None, None], 0.2)

    for training in (True, False):
        layer.train(training), plain.train(training)
        assert_same(ours, theirs, [image(dtype), layer.gain.weight, layer.shift.weight])
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(layer.state_dict()[name], value)
    assert gnn.mixes_samples(layer.train()) and not gnn.mixes_samples(layer.eval())


def test_conditional_batch_norm_begins_as_batch_norm():
    x, y = image(torch.float32), torch.tensor([0, 1, 1])
    torch.testing.assert_close(gnn.ConditionalBatchNormAct2d(C, 2)(x, y), nn.BatchNorm2d(C)(x).relu())
    layer = gnn.ConditionalBatchNormAct2d(C, 2, track_running_stats=False).eval()
    torch.testing.assert_close(layer(x, y), nn.BatchNorm2d(C)(x).relu())


# --- AdaINAct ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", BOUNDS)
def test_adain(dtype):
    layer = gnn.AdaINAct(activation="relu")

    def moments(v):
        return v.mean((2, 3), keepdim=True), (v.var((2, 3), keepdim=True, correction=0) + 1e-5).sqrt()

    def theirs(x, style):
        (mean, deviation), (shift, scale) = moments(x), moments(style)
        return ((x - mean) / deviation * scale + shift).relu()

    assert_same(layer, theirs, [image(dtype), image(dtype, side=3)])
    x, scale, shift = image(dtype), torch.randn(N, C, dtype=dtype), torch.randn(N, C, dtype=dtype)
    wanted = lambda x, a, b: (F.instance_norm(x) * a[:, :, None, None] + b[:, :, None, None]).relu()  # noqa: E731
    assert_same(layer, wanted, [x, scale, shift])
    assert gnn.AdaINAct()(x, scale, shift).min() < 0 and "activation=None" in repr(gnn.AdaINAct())


# --- SPADEAct ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistics", ["batch", "instance"])
@pytest.mark.parametrize("dtype", BOUNDS)
def test_spade(dtype, statistics):
    layer = gnn.SPADEAct(C, 2, hidden=3, statistics=statistics).to(dtype)
    plain = (nn.BatchNorm2d(C, affine=False) if statistics == "batch" else nn.InstanceNorm2d(C)).to(dtype)
    segmentation = torch.randn(N, 2, 3, 3, dtype=dtype)
    names, convolutions = zip(*[(name, p.detach()) for name, p in layer.named_parameters()])

    def ours(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters)), (x, segmentation))

    def theirs(x, *parameters):
        p = dict(zip(names, parameters))
        conv = lambda x, of: F.conv2d(x, p[f"{of}.weight"], p[f"{of}.bias"], padding=1)  # noqa: E731
        h = conv(F.interpolate(segmentation, (5, 5), mode="nearest"), "shared").relu()
        return (plain(x) * (1 + conv(h, "gamma")) + conv(h, "beta")).relu()

    for training in (True, False):
        layer.train(training), plain.train(training)
        assert_same(ours, theirs, [image(dtype), *convolutions])
    for a, b in zip(layer.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    assert gnn.mixes_samples(layer.train()) == (statistics == "batch") and not gnn.mixes_samples(layer.eval())
    with pytest.raises(ValueError, match="statistics: got 'layer', needs batch or instance"):
        gnn.SPADEAct(C, 2, statistics="layer")


# --- what they share --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [0, 1, 2, C])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("shapes", [(None, None), ((C,), (C,)), ((C,), None), ((N, C), (C,)), ((N, C, 5, 5), None)])
def test_by_torch_it_is_the_operator(shapes, given, groups):
    x = image(last=True)
    affine = [None if shape is None else torch.randn(shape, dtype=x.dtype) for shape in shapes]
    moments = norms.moments_by_torch(x, groups) if given else None
    rest = *affine, moments, 1e-3, "leaky_relu", 0.3
    a, found = functional.norm_act(x, groups, *rest)
    torch.testing.assert_close(norms.norm_act_by_torch(x, groups, *rest), a)
    torch.testing.assert_close(norms.moments_by_torch(x, groups), found)


def test_half_precision_and_autocast():
    for layer in (gnn.InstanceNormAct2d(C, affine=True), gnn.InstanceNormAct2d(C, track_running_stats=True).eval()):
        x = image(torch.bfloat16)
        out = layer(x)
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out.float(), copy.deepcopy(layer)(x.float()), rtol=2e-2, atol=2e-2)
