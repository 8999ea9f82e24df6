"""Two rows are added to the table before anything reads it; run by test_activations.py in Triton's interpreter."""

from unittest import mock

import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from ganfast import activations

SOFTPLUS = "positive(z) + log1p_unit(exp_negative(-abs(z)))"
activations.ROWS["mish"] = activations.Row(  # its derivative needs the input
    f"z * tanh({SOFTPLUS})",
    f"s = sigmoid(z); t = tanh({SOFTPLUS}); c * (t + z * (1 - t * t) * s)",
    second=f"s = sigmoid(z); t = tanh({SOFTPLUS}); d = (1 - t * t) * s; "
    "c * (2 * d + z * (d * (1 - s) - 2 * t * s * d))",
    layer="Mish",
    function="mish",
    options={"inplace": False},
)
activations.ROWS["elu"] = activations.Row(  # its derivative comes from the output
    "where(z < 0, expm1_negative(-positive(-z)), z)",
    "where(y < 0, c * (y + 1), c)",
    second="where(y < 0, c, 0.0 * c)",
    layer="ELU",
    function="elu",
    options={"alpha": 1.0, "inplace": False},
)

import ganfast  # noqa: E402  after the rows
from ganfast import functional, ops, penalty, reference  # noqa: E402
from ganfast import nn as gnn  # noqa: E402
from ganfast.ops import _tuning  # noqa: E402
from ganfast.ops import batch_norm_act as bn  # noqa: E402
from ganfast.ops import conv_bn_act as conv  # noqa: E402
from ganfast.reference.batch_norm_act import batch_norm_act_backward as plain_backward  # noqa: E402


def close(got, wanted, bound):
    error = float((got.double() - wanted).norm() / wanted.norm())
    assert error <= bound, error


def draw(*shapes):
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def as_torch(name):
    return getattr(nn, activations.ROWS[name].layer)()


def operators(name):
    z = torch.linspace(-30, 30, 601, dtype=torch.float64)
    torch.testing.assert_close(reference.activate(z, name), as_torch(name)(z))

    y, weight, bias = draw((3, 2, 2, 2), 2, 2)
    run = lambda *args: functional.batch_norm_act(args[0], None, None, *args[1:], True, activation=name)  # noqa: E731
    assert gradcheck(run, (y, weight, bias)) and gradgradcheck(run, (y, weight, bias))
    x, w, b = draw((2, 2, 3, 3), (2, 2, 2, 2), 2)
    run = lambda *args: functional.conv_bn_act(*args, activation=name)  # noqa: E731
    assert gradcheck(run, (x, w, b)) and gradgradcheck(run, (x, w, b))

    single = [v.detach().float() for v in (y, weight, bias)]
    functional.batch_norm_act(single[0], None, None, *single[1:], True, activation=name)  # by the reference
    try:
        with ops.use_backend("cpu"):
            bn.batch_norm_act(*single, None, None, None, 0.1, 1e-5, name, 0.2)
    except RuntimeError as error:  # also where there is no compiled code
        assert f"{name} goes through the reference: ganfast._C was built without it" in str(error) or "_C" in str(error)
    else:
        raise AssertionError("the compiled code cannot have it")


def kernels(name):
    y, g, weight, bias = torch.randn(5, 3, 4, 4), torch.randn(5, 3, 4, 4), torch.rand(3) + 0.5, torch.randn(3)
    running, options = (None, None, None, 0.1), (1e-5, name, 0.2)
    forward, backward = (op.backends[0].run for op in (bn.batch_norm_act, bn.batch_norm_act_backward))  # in Triton
    a, moments = forward(y, weight, bias, *running, *options)
    found = a, *backward(g, y, weight, bias, moments, True, *options)
    y, g, weight, bias = (v.double() for v in (y, g, weight, bias))
    a, moments = reference.batch_norm_act(y, weight, bias, *running, *options)
    for got, wanted in zip(found, (a, *plain_backward(g, y, weight, bias, moments, True, *options))):
        close(got, wanted, 3e-6)

    if conv.is_from_output(name):
        shapes = (2, 16, 6, 6), (16, 16, 3, 3)
        x, w = (torch.randn(shape).contiguous(memory_format=torch.channels_last) for shape in shapes)
        bias = torch.randn(16)
        layer = x, None, None, None, w, bias, False, (1, 1), (1, 1), (0, 0), 0.0, None, 0.0, name, 0.0
        torch.backends.cudnn.allow_tf32 = False
        with mock.patch.object(_tuning, "choose", lambda key, candidates, device: next(iter(candidates))):
            y = conv._triton_act(*layer)
        wide = [v.double() if isinstance(v, torch.Tensor) else v for v in layer]
        close(y, conv._reference_act(*wide), 3e-6)


def layers(name):
    layer = gnn.ConvAct2d(3, 4, 3, activation=name).double()
    assert name in repr(layer)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x), as_torch(name)(layer.conv(x)))
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), as_torch(name)).double()
    wanted = net(x)
    assert ganfast.fuse(net).fused == 1
    torch.testing.assert_close(net(x), wanted)


def penalties(name):
    critic = nn.Sequential(gnn.ConvAct2d(1, 3, 3, activation=name), nn.Flatten(), nn.Linear(12, 1)).double()
    real, fake, eps = torch.randn(3, 1, 4, 4).double(), torch.randn(3, 1, 4, 4).double(), torch.rand(3).double()
    x = (eps.view(-1, 1, 1, 1) * real + (1 - eps.view(-1, 1, 1, 1)) * fake).requires_grad_()
    score = critic[2](critic[1](as_torch(name)(critic[0].conv(x)))).sum()
    (g,) = torch.autograd.grad(score, x, create_graph=True)
    wanted = 10 * (g.flatten(1).norm(dim=1) - 1).square().mean()
    got = penalty.gradient_penalty(critic, real, fake, eps=eps, strict=True)
    torch.testing.assert_close(got, wanted)
    parameters = [p for p in critic.parameters() if p is not critic[2].bias]
    for pair in zip(*(torch.autograd.grad(v, parameters, allow_unused=True) for v in (got, wanted))):
        torch.testing.assert_close(*pair)


if __name__ == "__main__":
    torch.manual_seed(0)
    for each in ("mish", "elu"):
        for check in (operators, kernels, layers, penalties):
            check(each)
    print("done")
