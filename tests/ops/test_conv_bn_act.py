"""conv_bn_act: truth is torch's own composition in fp64; derivatives to any order, what they cost, dtypes, layouts."""

import itertools

import pytest
import torch
from graphed import captured
from kinks import away_from_kinks
from ops.links import ACTS, BOUNDS, Link, composed
from torch.autograd import gradcheck, gradgradcheck

from ganfast import functional, ops
from ganfast.ops.conv_bn_act import conv_bn_act, conv_bn_act_backward, conv_bn_act_tangent

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
PROLOGUES = [(False, None), *((True, a) for a in ACTS)]
EPILOGUES = [*((a, False) for a in ACTS), (None, True)]


def outputs(link, leaves, function=conv_bn_act):
    results = function(*link.put(leaves))
    return results if link.statistics else results[:1]


# --- derivatives ------------------------------------------------------------------------------------------------------


def smooth(*args, **kwargs):
    """A Link with no number near a kink."""
    return away_from_kinks(lambda: Link(*args, **kwargs), lambda link: link.at_kinks)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("out_activation", "statistics"), EPILOGUES)
@pytest.mark.parametrize(("affine", "in_activation"), PROLOGUES)
def test_derivatives_to_second_order(transposed, affine, in_activation, out_activation, statistics):
    for bias in (False, True):
        link = smooth(
            transposed, affine=affine, in_activation=in_activation, out_activation=out_activation,
            statistics=statistics, bias=bias, size=(2, 2, 3, 2), kernel=(2, 2),
        )  # fmt: skip

        def function(*leaves):
            return outputs(link, leaves)  # noqa: B023  called at once

        assert gradcheck(function, link.leaves, fast_mode=True)
        assert gradgradcheck(function, link.leaves, fast_mode=True)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("through", ["eager", "dispatcher"])
def test_every_entry_of_the_derivatives(through, transposed):
    call = conv_bn_act if through == "eager" else torch.ops.ganfast.conv_bn_act
    for affine, activations in ((True, ("tanh", "tanh")), (False, (None, "leaky_relu")), (True, ("relu", None))):
        link = smooth(
            transposed, affine=affine, in_activation=activations[0], out_activation=activations[1],
            statistics=activations[1] is None, size=(2, 1, 3, 2), kernel=(2, 2),
        )  # fmt: skip

        def function(*leaves):
            return outputs(link, leaves, call)  # noqa: B023  called at once

        assert gradcheck(function, link.leaves)
        assert gradgradcheck(function, link.leaves)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_third_derivative(transposed):
    # torch's own third derivative fails with an output padding
    link = Link(transposed, affine=True, in_activation="tanh", out_activation="tanh", output_padding=(0, 0))
    thirds = []
    for function in (conv_bn_act, composed):
        leaves = [t.detach().requires_grad_() for t in link.leaves]
        value = function(*link.put(leaves))[0].square().sum()
        for _ in range(2):
            value = sum(g.square().sum() for g in torch.autograd.grad(value, leaves, create_graph=True))
        thirds.append(torch.autograd.grad(value, leaves))
    for got, wanted in zip(*thirds):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_dtype_equals_fp64(dtype, channels_last, device):
    """Forward and all gradients, by ‖a − b‖/‖b‖: the rounding of each step's result.

    No kinked activation behind: an output that rounds to the other side of it turns a gradient by more than rounding.
    """
    for transposed, (affine, in_activation), (out_activation, statistics) in itertools.product(
        (False, True), [(False, None), (True, "relu"), (True, "tanh")], [("tanh", False), (None, True)]
    ):
        link = Link(
            transposed, affine=affine, in_activation=in_activation, out_activation=out_activation,
            statistics=statistics, size=(3, 17, 9, 7), c_out=5, kernel=(4, 3), stride=(2, 2), padding=(1, 1),
            dtype=dtype, device=device, channels_last=channels_last,
        )  # fmt: skip
        results = outputs(link, link.leaves)
        wide = [t.detach().double().requires_grad_() for t in link.leaves]
        wanted = outputs(link, wide, composed)
        seeds = [torch.randn_like(r) for r in results]
        gradients = torch.autograd.grad(results, link.leaves, seeds)
        true_gradients = torch.autograd.grad(wanted, wide, [s.double() for s in seeds])
        assert results[0].dtype == dtype
        assert all(r.dtype == torch.float32 for r in results[1:])
        assert [g.dtype for g in gradients] == [t.dtype for t in link.leaves]
        for got, true in zip((*results, *gradients), (*wanted, *true_gradients)):
            assert (got.double() - true).norm() <= 8 * BOUNDS[dtype] * true.norm()


def test_statistics_far_from_zero():
    """Mean 1e4, deviation 1: the variance is not a difference of large numbers."""
    x = torch.randn(8, 1, 16, 16) + 1e4
    weight = torch.ones(1, 1, 1, 1)
    _, mean, var = conv_bn_act(x, None, None, weight, None, False, (1, 1), (0, 0), (0, 0), None, 0.0, None, 0.0, True)
    torch.testing.assert_close(mean.double(), x.double().mean().view(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(var.double(), x.double().var(correction=0).view(1), rtol=1e-3, atol=0)


# --- what a derivative costs ------------------------------------------------------------------------------------------


def critic(ours):
    """Five convolutions of the WGAN-GP critic with LeakyReLU between them: (parameters, function)."""
    widths = [3, 4, 4, 4, 4, 1]
    weights = [torch.randn(b, a, 4, 4, dtype=torch.float64) / 8 for a, b in itertools.pairwise(widths)]
    biases = [torch.randn(b, dtype=torch.float64) / 8 for b in widths[1:]]
    parameters = [t.requires_grad_() for t in (*weights, *biases)]

    def forward(x):
        for i, (w, b) in enumerate(zip(weights, biases)):
            activation = "leaky_relu" if i < 4 else None
            if ours:
                x = functional.conv_bn_act(x, w, b, stride=2, padding=1, activation=activation)
            else:
                x = torch.nn.functional.conv2d(x, w, b, 2, 1)
                x = torch.nn.functional.leaky_relu(x, 0.2) if activation else x
        return x

    return parameters, forward


def convolutions(function) -> dict:
    with torch.autograd.profiler.profile() as profile:
        function()
    counts = {event.key: event.count for event in profile.key_averages()}
    return {name: counts.get(f"aten::{name}", 0) for name in ("convolution", "convolution_backward")}


def penalty(forward, parameters, x):
    (g,) = torch.autograd.grad(forward(x).sum(), x, create_graph=True)
    return torch.autograd.grad((g.flatten(1).norm(dim=1) - 1).square().mean(), parameters, allow_unused=True)


def test_a_gradient_penalty_convolves_no_zeros():
    """Reverse sweep: 5 data gradients; then 4 tangents and 5 weight gradients. Torch makes 5 convolutions more."""
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(4)
    parameters, forward = critic(True)
    torch.manual_seed(4)
    torch_parameters, torch_forward = critic(False)
    ours = convolutions(lambda: penalty(forward, parameters, x))
    torchs = convolutions(lambda: penalty(torch_forward, torch_parameters, x))
    assert ours == {"convolution": 5 + 4, "convolution_backward": 5 + 5}
    assert sum(torchs.values()) >= sum(ours.values()) + 5
    got, wanted = penalty(forward, parameters, x), penalty(torch_forward, torch_parameters, x)
    for a, b in zip(got[:5], wanted[:5]):
        torch.testing.assert_close(a, b)
    for bias in got[5:]:  # piecewise linear: a bias has no second derivative, and none is made
        assert bias is None


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
@pytest.mark.parametrize("transposed", [True, False])
def test_the_tangent_is_the_directional_derivative(transposed, activation):
    """That of act(conv(x)) along d, itself differentiable; it is what a second derivative of x calls."""
    link = Link(transposed, out_activation=activation)
    x, weight = (link.tensors[i].detach() for i in (0, 3))
    y = conv_bn_act(*link.put(link.leaves))[0].detach()
    rest = *link.geometry, activation, link.activations[-1]
    d = torch.randn_like(x).requires_grad_()
    leaves = [leaf.detach() for leaf in link.leaves[1:]]
    _, wanted = torch.autograd.functional.jvp(lambda x: composed(*link.put([x, *leaves]))[0], x, d.detach())
    torch.testing.assert_close(conv_bn_act_tangent(d, weight, y, *rest), wanted)
    weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda d, w: conv_bn_act_tangent(d, w, y, *rest), (d, weight))
    assert torch.autograd.gradgradcheck(lambda d, w: conv_bn_act_tangent(d, w, y, *rest), (d, weight))
    with pytest.raises(ValueError, match="activation: got 'tanh'"):
        conv_bn_act_tangent(d, weight, y, *rest[:-2], "tanh", 0.0)


@pytest.mark.parametrize("asked", ["x", "weight", "bias", "affine"])
def test_only_what_is_asked_for_is_computed(asked):
    """autograd.grad of x pays for no weight gradient, of the weight for no data gradient."""
    link = Link(False, affine=True, in_activation="relu", out_activation="relu")
    x, scale, _, weight, bias = link.tensors
    y = conv_bn_act(*link.put(link.leaves))[0]
    wanted = {"x": x, "weight": weight, "bias": bias, "affine": scale}[asked]
    flags = []

    def spy(*args):
        flags.append(list(args[-1]))
        return results(*args)

    results, conv_bn_act_backward.reference = conv_bn_act_backward.reference, spy
    try:
        (gradient,) = torch.autograd.grad(y.sum(), wanted)
    finally:
        conv_bn_act_backward.reference = results
    assert flags == [[name == asked for name in ("x", "affine", "weight", "bias")]]
    (true,) = torch.autograd.grad(composed(*link.put(link.leaves))[0].sum(), wanted)
    torch.testing.assert_close(gradient, true)


# --- the operator -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("transposed", "channels_last"), [(False, True), (True, False)])
def test_opcheck(transposed, channels_last, device):
    for affine, in_activation, out_activation, needed in (
        (False, None, "relu", [True, False, True, True]),
        (True, "leaky_relu", None, [False, True, True, False]),
    ):
        statistics = out_activation is None
        link = Link(
            transposed, affine=affine, in_activation=in_activation, out_activation=out_activation,
            statistics=statistics, size=(3, 4, 7, 5), dtype=torch.float32, device=device, channels_last=channels_last,
        )  # fmt: skip
        arguments = link.put(link.leaves)
        torch.library.opcheck(conv_bn_act.overload, arguments)
        y, mean, var = (r.detach() for r in conv_bn_act(*arguments))
        seeds = (
            torch.randn_like(y).requires_grad_(),
            *(torch.randn_like(v) if statistics else None for v in (mean, var)),
        )
        saved = (*link.tensors[:4], y, mean if statistics else None)
        torch.library.opcheck(
            conv_bn_act_backward.overload, (*seeds, *saved, *link.geometry, *link.activations, needed)
        )
        if out_activation is not None:
            tangent = (link.tensors[0], link.tensors[3], y, *link.geometry, out_activation, 0.2)
            torch.library.opcheck(conv_bn_act_tangent.overload, tangent)


@pytest.mark.usefixtures("inductor")
@pytest.mark.parametrize("device", DEVICES)
def test_compiled_equals_eager(device):
    def step(x, weight, gain, back):
        y, mean, var = conv_bn_act(
            2 * x, None, None, weight, None, False, (2, 2), (1, 1), (0, 0), None, 0.0, None, 0.0, True
        )
        scale = gain * torch.rsqrt(var + 1e-5)
        return conv_bn_act(
            y, scale, -mean * scale, back, None, True, (2, 2), (1, 1), (1, 1), "relu", 0.0, "tanh", 0.0, False
        )[0]

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True)
    for size in (6, 6, 9):
        results = []
        for function in (step, compiled):
            torch.manual_seed(1)
            shapes = (2, 3, size, size), (5, 3, 3, 3), (5, 4, 3, 3)
            x, w, back = (torch.randn(s, device=device, requires_grad=True) for s in shapes)
            gain = torch.rand(5, device=device).requires_grad_()
            out = function(x, w, gain, back)
            out.sum().backward()
            results.append([out.detach(), x.grad, w.grad, gain.grad, back.grad])
        for a, b in zip(*results):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_lowers_the_convolution_and_not_its_scale(device):
    link = Link(False, affine=True, in_activation="relu", statistics=True, dtype=torch.float32, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        y, mean, var = conv_bn_act(*link.put(link.leaves))
        gradients = torch.autograd.grad(y.float().square().sum() + var.sum(), link.leaves, create_graph=True)
        seconds = torch.autograd.grad(sum(g.square().sum() for g in gradients), link.leaves)
    assert (y.dtype, mean.dtype, var.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert all(g.dtype == torch.float32 for g in (*gradients, *seconds))
    x, scale, shift, weight, bias = link.tensors
    lowered = conv_bn_act(x.bfloat16(), scale, shift, weight.bfloat16(), bias.bfloat16(), *link.rest)
    assert torch.equal(y, lowered[0])


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_layouts_are_those_of_torchs_convolution(transposed, channels_last):
    link = Link(transposed, out_activation="relu", size=(2, 8, 6, 6), c_out=8, dtype=torch.float32,
                channels_last=channels_last)  # fmt: skip
    y = conv_bn_act(*link.put(link.leaves))[0]
    assert y.stride() == composed(*link.put(link.leaves))[0].stride()


def test_any_layout():
    wide = torch.randn(4, 6, 10, 12, dtype=torch.float64)
    views = wide[::2, 1::2, 3:, ::3], wide.permute(1, 0, 3, 2)[:, :3], wide[:, :3, :1].expand(4, 3, 5, 12)
    for view in views:
        for transposed in (False, True):
            link = Link(transposed, affine=True, in_activation="leaky_relu", out_activation="tanh")
            leaves = [view.detach().requires_grad_(), *link.leaves[1:]]
            got, wanted = (f(*link.put(leaves))[0] for f in (conv_bn_act, composed))
            torch.testing.assert_close(got, wanted)
            for a, b in zip(*(torch.autograd.grad(y.sin().sum(), leaves) for y in (got, wanted))):
                torch.testing.assert_close(a, b)


@pytest.mark.filterwarnings("ignore:var:UserWarning")  # torch's: no degrees of freedom
@pytest.mark.parametrize("transposed", [False, True])
def test_an_empty_batch(transposed):
    for statistics in (False, True):
        link = Link(transposed, affine=True, in_activation="relu", statistics=statistics, size=(0, 3, 4, 3))
        results = outputs(link, link.leaves)
        assert results[0].shape == composed(*link.put(link.leaves))[0].shape
        assert all(v.isnan().all() for v in results[1:])
        gradients = torch.autograd.grad(sum(r.sum() for r in results), link.leaves)
        assert all(g.shape == t.shape and not g.any() for g, t in zip(gradients, link.leaves))


def test_nan_goes_through():
    for activation in ACTS:
        link = Link(False, affine=True, in_activation=activation, out_activation=activation, requires_grad=False)
        x = link.tensors[0]
        x[1, 0, 2, 1] = float("nan")
        got, wanted = (f(*link.put(link.leaves))[0] for f in (conv_bn_act, composed))
        assert got.isnan().any()
        torch.testing.assert_close(got, wanted, equal_nan=True)


def test_transforms_of_torch_func():
    link = Link(False, out_activation="tanh", bias=False)
    x, weight = link.leaves
    got = torch.func.grad(lambda w: conv_bn_act(*link.put([x.detach(), w]))[0].sum())(weight.detach())
    (wanted,) = torch.autograd.grad(conv_bn_act(*link.put([x, weight]))[0].sum(), weight)
    torch.testing.assert_close(got, wanted)


# --- in a CUDA graph --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("transposed", [False, True])
def test_in_a_graph(transposed, dtype, graph_device):
    """Against fp64; on a GPU the Triton backend, whose kernels have the same bits in a graph: the vendor's need not."""
    link = Link(
        transposed, affine=True, in_activation="tanh", statistics=True, size=(8, 32, 8, 8), c_out=48, kernel=(4, 4),
        stride=(2, 2), padding=(1, 1), output_padding=(0, 0), dtype=dtype, device=graph_device, channels_last=True,
    )  # fmt: skip
    with torch.no_grad():
        seed = torch.randn_like(conv_bn_act(*link.put(link.leaves))[0])

    def step():
        y, mean, var = conv_bn_act(*link.put(link.leaves))
        return y, mean, var, *torch.autograd.grad((y, var), link.leaves, (seed, torch.ones_like(var)))

    with ops.use_backend("triton" if graph_device == "cuda" else None):
        eager, replay = captured(step)  # measures its configurations
        with torch.no_grad():
            link.tensors[0].copy_(torch.randn_like(link.tensors[0]))
        found = eager(), replay()
    wide = [t.detach().double().requires_grad_() for t in link.leaves]
    y, mean, var = composed(*link.put(wide))
    true = y, mean, var, *torch.autograd.grad((y, var), wide, (seed.double(), torch.ones_like(var)))
    for a, b, c in zip(*found, true):
        assert graph_device == "cpu" or torch.equal(a, b)
        assert all((got.double() - c).norm() <= 8 * BOUNDS[dtype] * c.norm() for got in (a, b))
