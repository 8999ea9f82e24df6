"""conv_act, conv_bn_act: truth is torch's composition in fp64; derivatives to any order, what they cost, layouts."""

import itertools

import pytest
import torch
from graphed import captured
from kinks import away_from_kinks
from ops.layers import ACTS, BOUNDS, EPS, Layer
from torch.autograd import gradcheck, gradgradcheck

from ganfast import activations, functional, ops
from ganfast.ops.conv_bn_act import conv_act, conv_act_tangent, conv_bn_act, conv_bn_act_backward

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
BEFORE = [(False, None), (True, "leaky_relu"), (True, "silu")]
FORMS = [
    *(("act", a) for a in (None, "leaky_relu", "tanh", "softplus")), *(("apply", a) for a in ("relu", "gelu")),
    ("leave", None),
]  # fmt: skip

# --- derivatives ------------------------------------------------------------------------------------------------------


def smooth(*args, **kwargs):
    """A Layer with no number near a kink."""
    return away_from_kinks(lambda: Layer(*args, **kwargs), lambda layer: layer.at_kinks)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("form", "activation"), FORMS)
@pytest.mark.parametrize(("before", "in_activation"), BEFORE)
def test_derivatives_to_second_order(transposed, before, in_activation, form, activation):
    for bias in (False, True):
        layer = smooth(
            transposed, form, before=before, in_activation=in_activation, activation=activation, bias=bias,
            size=(2, 2, 3, 2), kernel=(2, 2),
        )  # fmt: skip
        torch.testing.assert_close(layer(), layer.composed())
        assert gradcheck(lambda *leaves: layer(leaves), layer.leaves, fast_mode=True)  # noqa: B023  called at once
        assert gradgradcheck(lambda *leaves: layer(leaves), layer.leaves, fast_mode=True)  # noqa: B023


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("through", ["eager", "dispatcher"])
def test_every_entry_of_the_derivatives(through, transposed):
    for form, before, *acts in (
        ("act", True, "tanh", "tanh"), ("act", False, None, "leaky_relu"), ("leave", True, "relu", None),
        ("apply", True, "relu", "tanh"),
    ):  # fmt: skip
        sizes = {"size": (2, 1, 3, 2), "kernel": (2, 2)}
        layer = smooth(transposed, form, before=before, in_activation=acts[0], activation=acts[1], **sizes)
        call = None if through == "eager" else getattr(torch.ops.ganfast, layer.operator.name)
        assert gradcheck(lambda *leaves: layer(leaves, call), layer.leaves)  # noqa: B023  called at once
        assert gradgradcheck(lambda *leaves: layer(leaves, call), layer.leaves)  # noqa: B023


@pytest.mark.parametrize("form", ["act", "apply"])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_third_derivative(transposed, form):
    # torch fails with an output padding; the gradient of a bias before a normalisation is noise
    acts = {"in_activation": "tanh", "activation": "tanh"}
    layer = Layer(transposed, form, before=True, **acts, bias=form == "act", output_padding=(0, 0))
    thirds = []
    for function in (layer, layer.composed):
        leaves = [t.detach().requires_grad_() for t in layer.leaves]
        value = function(leaves)[0].square().sum()
        for _ in range(2):
            value = sum(g.square().sum() for g in torch.autograd.grad(value, leaves, create_graph=True))
        thirds.append(torch.autograd.grad(value, leaves))
    for got, wanted in zip(*thirds):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-5)


def test_the_backward_alone_has_no_second_derivative_with_moments():
    """It would be wrong in silence: under create_graph the formula is differentiated instead."""
    layer = Layer(False, "apply", activation="relu")
    x, *_, weight, _, bn_weight, bn_bias = (None if t is None else t.detach() for t in layer.tensors)
    a, z, moments = (t.detach() for t in layer())
    rest = *layer.geometry, 0.0, None, 0.0, EPS, "relu", 0.0, [True, False, True, False]
    da = torch.randn_like(a).requires_grad_()
    dx, *_ = conv_bn_act_backward(da, None, None, x, None, None, None, weight, bn_weight, bn_bias, z, moments, *rest)
    with pytest.raises(NotImplementedError, match=r"no derivative with moments: .* create_graph"):
        dx.sum().backward()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_dtype_equals_fp64(dtype, channels_last, device):
    """Forward and all gradients, by ‖a − b‖/‖b‖: the rounding of each step's result.

    No kinked activation behind: an output that rounds to the other side of it turns a gradient by more than rounding.
    """
    for transposed, (before, in_activation), (form, activation) in itertools.product(
        (False, True), [(False, None), (True, "relu"), (True, "tanh")],
        [("act", "tanh"), ("apply", "sigmoid"), ("leave", None)],
    ):  # fmt: skip
        layer = Layer(
            transposed, form, before=before, in_activation=in_activation, activation=activation, bias=form == "act",
            size=(3, 17, 9, 7), c_out=5, kernel=(4, 3), stride=(2, 2), padding=(1, 1), dtype=dtype, device=device,
            channels_last=channels_last,
        )  # fmt: skip
        results = layer()
        wide = [t.detach().double().requires_grad_() for t in layer.leaves]
        wanted = layer.composed(wide)
        if form == "apply":  # what a user differentiates
            results, wanted = results[:1], wanted[:1]
        seeds = [torch.randn_like(r) for r in results]
        leaves = layer.leaves
        if form == "leave":  # bn_weight and bn_bias are the next layer's
            leaves, wide = leaves[:-2], wide[:-2]
        gradients = torch.autograd.grad(results, leaves, seeds)
        true_gradients = torch.autograd.grad(wanted, wide, [s.double() for s in seeds])
        assert results[0].dtype == dtype
        assert all(r.dtype == torch.float32 for r in results[1:])
        assert [g.dtype for g in gradients] == [t.dtype for t in leaves]
        for got, true in zip((*results, *gradients), (*wanted, *true_gradients)):
            assert (got.double() - true).norm() <= 12 * BOUNDS[dtype] * true.norm()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("form", ["apply", "leave"])
def test_running_statistics_as_torch(form, momentum, device):
    layer = Layer(True, form, dtype=torch.float32, device=device)
    norm = torch.nn.BatchNorm2d(2, momentum=momentum, device=device)
    ours = [b.clone() for b in (norm.running_mean, norm.running_var, norm.num_batches_tracked)]
    for _ in range(3):
        conv_bn_act(*layer.put(layer.leaves, ours, momentum))
        norm(torch.nn.functional.conv_transpose2d(*(layer.tensors[i] for i in (0, 4, 5)), *layer.geometry[1:]))
    for a, b in zip(ours, (norm.running_mean, norm.running_var, norm.num_batches_tracked)):
        torch.testing.assert_close(a, b)


def test_moments_far_from_zero():
    """Mean 1e4, deviation 1: the variance is not a difference of large numbers."""
    x, geometry = torch.randn(8, 1, 16, 16) + 1e4, (False, (1, 1), (0, 0), (0, 0))
    nothing, rest = (None,) * 6, (0.0, None, 0.0, 0.1, 1e-5, None, 0.0, False)
    *_, (mean, var) = conv_bn_act(x, None, None, None, torch.ones(1, 1, 1, 1), *nothing, *geometry, *rest)
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


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "scaled_leaky_relu"])
@pytest.mark.parametrize("transposed", [True, False])
def test_the_tangent_is_the_directional_derivative(transposed, activation):
    """That of act(conv(x)) along d, itself differentiable; it is what a second derivative of x calls."""
    layer = Layer(transposed, activation=activation)
    x, weight = (layer.tensors[i].detach() for i in (0, 4))
    y, rest = layer()[0].detach(), (*layer.geometry, activation, 0.3)
    d = torch.randn_like(x).requires_grad_()
    leaves = [leaf.detach() for leaf in layer.leaves[1:]]
    _, wanted = torch.autograd.functional.jvp(lambda x: layer.composed([x, *leaves])[0], x, d.detach())
    torch.testing.assert_close(conv_act_tangent(d, weight, y, *rest), wanted)
    weight.requires_grad_()
    assert gradcheck(lambda d, w: conv_act_tangent(d, w, y, *rest), (d, weight))
    assert gradgradcheck(lambda d, w: conv_act_tangent(d, w, y, *rest), (d, weight))
    with pytest.raises(ValueError, match="activation: got 'tanh'"):
        conv_act_tangent(d, weight, y, *rest[:-2], "tanh", 0.0)


@pytest.mark.parametrize("asked", ["x", "before", "weight", "bias"])
@pytest.mark.parametrize("form", ["act", "apply"])
def test_only_what_is_asked_for_is_computed(form, asked):
    """autograd.grad of x pays for no weight gradient, of the weight for no data gradient."""
    layer = Layer(False, form, before=True, in_activation="relu", activation="relu")
    x, _, gain, _, weight, bias, *_ = layer.tensors
    y = layer()[0]
    wanted = {"x": x, "weight": weight, "bias": bias, "before": gain}[asked]
    flags = []

    def spy(*args):
        flags.append(list(args[-1]))
        return results(*args)

    results, conv_bn_act_backward.reference = conv_bn_act_backward.reference, spy
    try:
        (gradient,) = torch.autograd.grad(y.cos().sum(), wanted)
    finally:
        conv_bn_act_backward.reference = results
    assert flags == [[name == asked for name in ("x", "before", "weight", "bias")]]
    (true,) = torch.autograd.grad(layer.composed()[0].cos().sum(), wanted)
    torch.testing.assert_close(gradient, true)


# --- the operators ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("transposed", "channels_last"), [(False, True), (True, False)])
def test_opcheck(transposed, channels_last, device):
    for form, before, in_activation, activation, needed in (
        ("act", False, None, "relu", [True, False, True, True]),
        ("leave", True, "leaky_relu", None, [False, True, True, False]),
        ("apply", True, "relu", "silu", [True, True, True, False]),
    ):
        layer = Layer(
            transposed, form, before=before, in_activation=in_activation, activation=activation, size=(3, 4, 7, 5),
            dtype=torch.float32, device=device, channels_last=channels_last,
        )  # fmt: skip
        running = [torch.zeros(2, device=device), torch.ones(2, device=device), torch.tensor(0, device=device)]
        arguments = layer.put(layer.leaves, running) if form != "act" else layer.put(layer.leaves)
        torch.library.opcheck(layer.operator.overload, arguments)
        results = [r.detach() for r in layer()]
        seed = torch.randn_like(results[0]).requires_grad_(form == "act")
        cotangents = (None, seed, torch.randn_like(results[-1])) if form == "leave" else (seed, None, None)
        bn = layer.tensors[6:] or (None, None)
        saved = (results[0], None) if form == "act" else results[-2:]
        rest = *layer.geometry, EPS, in_activation, 0.2, EPS, activation, 0.3, needed
        leaves = [t if form == "act" or t is None else t.detach() for t in (*layer.tensors[:5], *bn)]
        torch.library.opcheck(conv_bn_act_backward.overload, (*cotangents, *leaves, *saved, *rest))
        if form == "act":
            tangent = layer.tensors[0], layer.tensors[4], results[0], *layer.geometry, activation, 0.2
            torch.library.opcheck(conv_act_tangent.overload, tangent)


@pytest.mark.usefixtures("inductor")
@pytest.mark.parametrize("device", DEVICES)
def test_compiled_equals_eager(device):
    def step(x, weight, gain, back, mean, var, count):
        geometry = False, (2, 2), (1, 1), (0, 0), 0.0, None, 0.0
        running = mean, var, count
        nothing = None, None, None
        _, z, moments = conv_bn_act(
            2 * x, *nothing, weight, None, gain, None, *running, *geometry, 0.1, 1e-5, None, 0.0, False
        )
        y = conv_act(z, moments, gain, None, back, None, True, (2, 2), (1, 1), (1, 1), 1e-5, "relu", 0.0, "tanh", 0.0)
        return conv_bn_act(y, *nothing, weight, None, gain, None, *running, *geometry, 0.1, 1e-5, "gelu", 0.0, True)[0]

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True)
    for size in (6, 6, 9):
        results = []
        for function in (step, compiled):
            torch.manual_seed(1)
            shapes = (2, 3, size, size), (5, 3, 3, 3), (5, 3, 3, 3)
            x, w, back = (torch.randn(s, device=device, requires_grad=True) for s in shapes)
            gain = torch.rand(5, device=device).requires_grad_()
            running = torch.zeros(5, device=device), torch.ones(5, device=device), torch.tensor(0, device=device)
            out = function(x, w, gain, back, *running)
            out.cos().sum().backward()
            results.append([out.detach(), x.grad, w.grad, gain.grad, back.grad, *running])
        assert results[0][-1] == 2
        for a, b in zip(*results):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_lowers_the_convolution_and_not_its_normalisation(device):
    layer = Layer(False, "leave", before=True, in_activation="relu", dtype=torch.float32, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        z, moments = layer()
        gradients = torch.autograd.grad(z.float().square().sum() + moments.sum(), layer.leaves[:6], create_graph=True)
        seconds = torch.autograd.grad(sum(g.square().sum() for g in gradients), layer.leaves[:6])
    assert (z.dtype, moments.dtype) == (torch.bfloat16, torch.float32)
    assert all(g.dtype == torch.float32 for g in (*gradients, *seconds))
    x, moments, gain, offset, weight, bias, *bn = layer.leaves
    lowered = layer([x.bfloat16(), moments, gain, offset, weight.bfloat16(), bias.bfloat16(), *bn])
    assert torch.equal(z, lowered[0])


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_layouts_are_those_of_torchs_convolution(transposed, channels_last):
    for form in ("act", "apply"):
        layer = Layer(transposed, form, activation="relu", size=(2, 8, 6, 6), c_out=8, dtype=torch.float32,
                      channels_last=channels_last)  # fmt: skip
        assert layer()[0].stride() == Layer.composed(layer)[0].stride()


def test_any_layout():
    wide = torch.randn(4, 6, 10, 12, dtype=torch.float64)
    views = wide[::2, 1::2, 3:, ::3], wide.permute(1, 0, 3, 2)[:, :3], wide[:, :3, :1].expand(4, 3, 5, 12)
    for view, transposed, form in itertools.product(views, (False, True), ("act", "apply")):
        layer = Layer(transposed, form, before=True, in_activation="leaky_relu", activation="tanh")
        leaves = [view.detach().requires_grad_(), *layer.leaves[1:]]
        got, wanted = (f(leaves)[0] for f in (layer, layer.composed))
        torch.testing.assert_close(got, wanted)
        for a, b in zip(*(torch.autograd.grad(y.sin().sum(), leaves) for y in (got, wanted))):
            torch.testing.assert_close(a, b)


@pytest.mark.filterwarnings("ignore:var:UserWarning")  # torch's: no degrees of freedom
@pytest.mark.parametrize("transposed", [False, True])
def test_an_empty_batch(transposed):
    for form in ("act", "apply", "leave"):
        layer = Layer(transposed, form, before=True, in_activation="relu", size=(0, 3, 4, 3))
        results = layer()
        assert results[0].shape == layer.composed()[0].shape
        assert form == "act" or results[-1].isnan().all()
        gradients = torch.autograd.grad(results[0].sum(), layer.leaves, allow_unused=True)
        assert all(g is None or (g.shape == t.shape and not g.any()) for g, t in zip(gradients, layer.leaves))


def test_nan_goes_through():
    for activation, form in itertools.product(ACTS, ("act", "apply")):
        layer = Layer(False, form, before=True, in_activation=activation, activation=activation, requires_grad=False)
        layer.tensors[0][1, 0, 2, 1] = float("nan")
        got, wanted = layer()[0], layer.composed()[0]
        assert got.isnan().any()
        torch.testing.assert_close(got, wanted, equal_nan=True)


def test_transforms_of_torch_func():
    layer = Layer(False, activation="tanh", bias=False)
    x, weight = layer.leaves
    got = torch.func.grad(lambda w: layer([x.detach(), w])[0].sum())(weight.detach())
    (wanted,) = torch.autograd.grad(layer()[0].sum(), weight)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("activation", [name for name in activations.ROWS if name not in ACTS])
def test_an_activation_that_needs_its_input_stands_behind_the_convolution(activation):
    x, weight, bias = (t.detach().requires_grad_() for t in Layer(False).leaves)
    y = functional.conv_bn_act(x, weight, bias, activation=activation)
    act = getattr(torch.nn.functional, activations.ROWS[activation].function)
    torch.testing.assert_close(y, act(torch.nn.functional.conv2d(x, weight, bias)))
    assert gradgradcheck(lambda *t: functional.conv_bn_act(*t, activation=activation), (x, weight, bias))


# --- in a CUDA graph --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("transposed", [False, True])
def test_in_a_graph(transposed, dtype, graph_device):
    """Against fp64; on a GPU the Triton backend, whose kernels have the same bits in a graph: the vendor's need not."""
    layer = Layer(
        transposed, "leave", before=True, in_activation="tanh", size=(8, 32, 8, 8), c_out=48, kernel=(4, 4),
        stride=(2, 2), padding=(1, 1), output_padding=(0, 0), dtype=dtype, device=graph_device, channels_last=True,
    )  # fmt: skip
    leaves = layer.leaves[:6]  # bn_weight and bn_bias are the next layer's
    with torch.no_grad():
        seed = torch.randn_like(layer()[0])

    def step():
        z, moments = layer()
        return z, moments, *torch.autograd.grad((z, moments), leaves, (seed, torch.ones_like(moments)))

    with ops.use_backend("triton" if graph_device == "cuda" else None):
        eager, replay = captured(step)  # measures its configurations
        with torch.no_grad():
            leaves[0].copy_(torch.randn_like(leaves[0]))
        found = eager(), replay()
    wide = [t.detach().double().requires_grad_() for t in layer.leaves]
    z, moments = layer.composed(wide)
    ones = torch.ones_like(moments)
    true = z, moments, *torch.autograd.grad((z, moments), wide[:6], (seed.double(), ones))
    for a, b, c in zip(*found, true):
        assert graph_device == "cpu" or torch.equal(a, b)
        assert all((got.double() - c).norm() <= 8 * BOUNDS[dtype] * c.norm() for got in (a, b))
