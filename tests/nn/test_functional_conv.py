"""conv_transpose_bn_relu and conv_bn_act against loops over taps and spelled-out statistics."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from ganfast import functional


def scatter(x, w, stride, padding, output_padding):
    """conv_transpose2d, one tap at a time."""
    n, _, h, width = x.shape
    k = w.shape[2]
    size = [(s - 1) * stride + k + output_padding for s in (h, width)]
    y = x.new_zeros(n, w.shape[1], *size)
    for i in range(h):
        for j in range(width):
            patch = torch.einsum("nc,cokl->nokl", x[:, :, i, j], w)
            y[:, :, i * stride : i * stride + k, j * stride : j * stride + k] += patch
    return y[:, :, padding : size[0] - padding, padding : size[1] - padding]


def gather(x, w, stride, padding):
    """conv2d, one output pixel at a time."""
    n, c, h, width = x.shape
    k = w.shape[2]
    padded = x.new_zeros(n, c, h + 2 * padding, width + 2 * padding)
    padded[:, :, padding : padding + h, padding : padding + width] = x
    rows = range(0, h + 2 * padding - k + 1, stride)
    columns = range(0, width + 2 * padding - k + 1, stride)
    pixels = [[torch.einsum("nckl,ockl->no", padded[:, :, i : i + k, j : j + k], w) for j in columns] for i in rows]
    return torch.stack([torch.stack(row, -1) for row in pixels], -2)


def activate(y, activation):
    if activation == "relu":
        return y * (y > 0)
    if activation == "leaky_relu":
        return torch.where(y > 0, y, 0.2 * y)
    return torch.tanh(y) if activation == "tanh" else y


def statistics(y):
    mean = y.mean((0, 2, 3))
    return mean, (y - mean.view(1, -1, 1, 1)).square().mean((0, 2, 3))


def normalise(y, gamma, beta, mean, var, eps):
    shape = (1, -1, 1, 1)
    return (y - mean.view(shape)) / (var.view(shape) + eps).sqrt() * gamma.view(shape) + beta.view(shape)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", None])
@pytest.mark.parametrize("kind", ["transposed", "plain"])
@pytest.mark.parametrize("mode", ["train", "eval", "no batch norm"])
def test_equals_the_loops(kind, mode, activation):
    c_in, c_out = 3, 4
    x = torch.randn(2, c_in, 4, 5, dtype=torch.float64)
    w = torch.randn(*((c_in, c_out) if kind == "transposed" else (c_out, c_in)), 3, 3, dtype=torch.float64)
    bias, gamma, beta, mean = torch.randn(4, c_out, dtype=torch.float64)
    var = torch.rand(c_out, dtype=torch.float64) + 0.5
    y = scatter(x, w, 2, 1, 1) if kind == "transposed" else gather(x, w, 2, 1)
    y = y + bias.view(1, -1, 1, 1)
    running = (mean.clone(), var.clone())
    if mode == "train":
        batch_mean = y.mean((0, 2, 3))
        batch_var = (y - batch_mean.view(1, -1, 1, 1)).square().mean((0, 2, 3))
        wanted = normalise(y, gamma, beta, batch_mean, batch_var, 1e-5)
        count = y.numel() // c_out
        mean, var = 0.9 * mean + 0.1 * batch_mean, 0.9 * var + 0.1 * batch_var * count / (count - 1)
    elif mode == "eval":
        wanted = normalise(y, gamma, beta, mean, var, 1e-5)
    else:
        wanted = y
    bn = (None,) * 4 if mode == "no batch norm" else (gamma, beta, *running)
    rest = (x, w, bias, *bn, mode == "train", 0.1, 1e-5, 2, 1)
    if kind == "transposed":
        got = functional.conv_transpose_bn_relu(*rest, 1, activation)
    else:
        got = functional.conv_bn_act(*rest, activation)
    torch.testing.assert_close(got, activate(wanted, activation), rtol=1e-10, atol=1e-12)
    if mode != "no batch norm":
        torch.testing.assert_close(running, (mean, var))


def arguments(training):
    make = torch.Generator().manual_seed(3)
    x, w = (torch.randn(*s, dtype=torch.float64, generator=make) for s in ((2, 2, 3, 3), (2, 2, 3, 3)))
    vectors = [torch.rand(2, dtype=torch.float64, generator=make) + 0.5 for _ in range(4)]
    leaves = [t.requires_grad_() for t in (x, w, *vectors[:2])]
    return leaves, (*vectors[2:], training, 0.1, 1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_derivatives_to_second_order(training):
    leaves, rest = arguments(training)

    def up(x, w, gamma, beta):
        return functional.conv_transpose_bn_relu(x, w, None, gamma, beta, *rest, 2, 1, 1, "tanh")

    def down(x, w, gamma, beta):
        return functional.conv_bn_act(x, w, None, gamma, beta, *rest, 1, 1, "leaky_relu")

    for function in (up, down):
        assert gradcheck(function, leaves)
        assert gradgradcheck(function, leaves)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"activation": "ulu"}, ValueError, "activation: got 'ulu', needs"),
        ({"weight": torch.randn(4, 3, 3, 3, dtype=torch.float64)}, TypeError, "weight: got dtype torch.float64"),
        ({"x": [1.0]}, TypeError, "x: got list, needs a torch.Tensor"),
    ],
)
def test_errors_name_the_argument(change, error, message, training):
    ones = [torch.ones(4) for _ in range(4)]
    given = {"x": torch.randn(2, 3, 6, 6), "weight": torch.randn(4, 3, 3, 3)} | change
    x, weight, activation = given["x"], given["weight"], given.get("activation", "relu")
    with pytest.raises(error, match=message):
        functional.conv_bn_act(x, weight, None, *ones, training=training, activation=activation)
    assert all(torch.equal(v, torch.ones(4)) for v in ones)  # the running statistics have not moved


@pytest.mark.parametrize("pixels", [4, 300])  # torch's own normalisation, and ganfast's
def test_a_negative_slope_behind_a_norm(pixels):
    x = torch.randn(2, 2, pixels, pixels, dtype=torch.float64, requires_grad=True)
    weight, ones = torch.randn(2, 2, 1, 1, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    y = functional.conv_bn_act(x, weight, None, ones, training=True, negative_slope=-0.3)
    z = normalise(F.conv2d(x, weight), ones, 0 * ones, *statistics(F.conv2d(x, weight)), 1e-5)
    wanted = torch.where(z > 0, z, -0.3 * z)
    torch.testing.assert_close(y, wanted)
    seed = torch.randn_like(y)
    torch.testing.assert_close(*(torch.autograd.grad(out, x, seed)[0] for out in (y, wanted)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "change, error, message",
    [
        (
            {"x": torch.randn(3, 9, 9)},
            ValueError,
            r"x: got shape \(3, 9, 9\), needs \[batch, channels, height, width\]",
        ),
        ({"weight": torch.randn(4, 3, 3)}, ValueError, r"weight: got shape \(4, 3, 3\), needs"),
        ({"bias": [1.0]}, TypeError, "bias: got list, needs a torch.Tensor"),
        ({"bias": torch.ones(3)}, ValueError, r"bias: got shape \(3,\), needs \(4,\)"),
        ({"stride": 0}, ValueError, r"stride: got \(0, 0\), needs two numbers, 1 or more"),
        ({"padding": "same"}, TypeError, "padding: got 'same', needs a whole number or two of them"),
        ({"bn_weight": [1.0] * 4}, TypeError, "bn_weight: got list, needs a torch.Tensor"),
        ({"bn_weight": torch.ones(3)}, ValueError, r"bn_weight: got shape \(3,\), needs \(4,\)"),
        ({"bn_bias": torch.ones(1, 4)}, ValueError, r"bn_bias: got shape \(1, 4\), needs \(4,\)"),
        ({"running_mean": torch.ones(3)}, ValueError, r"running_mean: got shape \(3,\), needs \(4,\)"),
        ({"running_var": torch.ones(4).int()}, TypeError, "running_var: got dtype torch.int32, needs"),
        ({"running_var": None}, ValueError, "running_mean, running_var: got one of them, needs both or neither"),
        ({"eps": -1.0}, ValueError, "eps: got -1.0, needs a finite number, 0 or more"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("function", ["conv_bn_act", "conv_transpose_bn_relu"])
def test_evaluation_refuses_what_training_refuses(function, change, error, message, training):
    """The folding of the statistics into the weights comes after the checks."""
    weight = torch.randn(3, 4, 3, 3) if function == "conv_transpose_bn_relu" else torch.randn(4, 3, 3, 3)
    vectors = {name: torch.ones(4) for name in ("bn_weight", "bn_bias", "running_mean", "running_var")}
    given = {"x": torch.randn(2, 3, 9, 9), "weight": weight, **vectors} | change
    with pytest.raises(error, match=message):
        getattr(functional, function)(**given, training=training)
