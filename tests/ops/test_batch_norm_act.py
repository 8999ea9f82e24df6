"""batch_norm_act: truth is the reference in fp64, and its against F.batch_norm; fast paths, layouts, bits."""

import contextlib
import itertools

import pytest
import torch
import torch.nn.functional as F
from graphed import captured
from kinks import away_from_kinks
from ops.channels import BOUNDS, DTYPES, assert_third, backends, laid
from torch.autograd import gradcheck, gradgradcheck

from ganfast import activations, functional, ops, reference
from ganfast.ops.batch_norm_act import (
    batch_norm_act,
    batch_norm_act_backward,
    batch_norm_act_double_backward,
    normalise_act,
)
from ganfast.reference.batch_norm_act import batch_norm_act_backward as reference_backward

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def torch_composition(y, mean, var, weight, bias, training, activation):
    return reference.activate(F.batch_norm(y, mean, var, weight, bias, training), activation)


def make(shape, dtype=torch.float32, device="cpu", layout="contiguous"):
    """y, da, weight, bias, running mean and variance."""
    y, da = (laid(torch.randn(shape, device=device), layout) for _ in range(2))
    weight, bias, mean = (torch.randn(shape[1], device=device) for _ in range(3))
    return (2 * y + 3).to(dtype), da.to(dtype), weight, bias, mean, 0.5 + torch.rand(shape[1], device=device)


def forward(y, weight, bias, moments, use_batch, *options):
    """(a, moments): of the batch, or the given ones."""
    with ops.use_backend(None) if y.dtype == torch.float64 else contextlib.nullcontext():
        if use_batch:
            return batch_norm_act(y, weight, bias, None, None, None, 0.1, *options)
        return normalise_act(y, weight, bias, moments, *options), moments


def check(y, da, weight, bias, mean, var, use_batch, activation):
    """Forward and backward against fp64; a sum is relative to the sum of its terms' magnitudes."""
    given, options = torch.stack((mean, var)), (use_batch, 1e-5, activation, 0.2)
    wide = [None if v is None else v.double() for v in (weight, bias)]
    flat, _ = forward(y.double(), *wide, given.double(), use_batch, 1e-5, None, 0.2)
    da = da.masked_fill(flat.abs() < 1e-4, 0.0)  # a kink may lie on either side of what has been rounded
    a, found = forward(y, weight, bias, given, *options)
    dy, sums = batch_norm_act_backward(da, y, weight, bias, found, *options)
    a64, m64 = forward(y.double(), *wide, given.double(), *options)
    dy64, sums64 = reference_backward(da.double(), y.double(), *wide, m64, *options)
    bound, terms = BOUNDS[y.dtype], da.double().abs().sum() + 1e-30
    assert a.dtype == dy.dtype == y.dtype
    assert a.shape == dy.shape == y.shape

    def near(got, wanted, bound, size):
        assert float((got.double() - wanted).norm()) <= bound * float(size)

    near(found[0], m64[0], 1e-6, m64[0].norm() + 1)
    near(found[1], m64[1], 3e-6, m64[1].norm())
    near(a, a64, bound, a64.norm() + a64.numel() ** 0.5)
    spread = (torch.ones(1) if weight is None else weight).abs().max() / (m64[1] + 1e-5).sqrt().min()
    near(dy, dy64, bound, dy64.norm() + float(spread) * da.double().norm())
    near(sums[1], sums64[1], 4e-6, 3 * terms)
    near(sums[0], sums64[0], 4e-6, terms)


# --- derivatives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("activation", activations.ROWS)
@pytest.mark.parametrize("training", [True, False])
def test_derivatives_to_second_order(training, activation, device):
    def draw():
        y, weight, bias = (torch.randn(s, dtype=torch.float64, device=device) for s in ((3, 2, 2, 2), 2, 2))
        return y, weight, bias, *(torch.rand(2, 2, device=device).double() + 0.5)

    def before_activation(drawn):
        y, *affine, mean, var = drawn
        return [F.batch_norm(y, mean.clone(), var.clone(), *each, training) for each in (affine, (None, None))]

    y, weight, bias, mean, var = away_from_kinks(draw, before_activation)
    y, weight, bias = (t.requires_grad_() for t in (y, weight, bias))
    ours, theirs = [mean.clone(), var.clone()], [mean.clone(), var.clone()]
    a = functional.batch_norm_act(y, *ours, weight, bias, training, activation=activation)
    torch.testing.assert_close(a, torch_composition(y, *theirs, weight, bias, training, activation))
    torch.testing.assert_close(ours, theirs)

    given = torch.stack((mean, var)).requires_grad_()  # differentiable, too

    def all_results(y, weight=None, bias=None, moments=given):
        out = forward(y, weight, bias, moments, training, 1e-5, activation, 0.2)
        return out if training else out[0]

    for arguments in ((y, weight, bias), (y,)) if training else ((y, weight, bias, given), (y,)):
        assert gradcheck(all_results, arguments)
        assert gradgradcheck(all_results, arguments)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", [None, "leaky_relu", "tanh"])
def test_a_third_derivative(activation, training):
    """Against the formula: torch's own batch_norm takes the batch's statistics for constants in its third."""
    mean, var = torch.rand(2, 1, dtype=torch.float64), torch.rand(2, 1, dtype=torch.float64)

    def ours(y, weight, bias):
        statistics = None if training else mean.flatten(), None if training else var.flatten()
        return functional.batch_norm_act(y, *statistics, weight, bias, training, activation=activation)

    def formula(y, weight, bias):
        v, m = torch.var_mean(y, (0, 2), correction=0, keepdim=True) if training else (var, mean)
        return reference.activate((y - m) / (v + 1e-5).sqrt() * weight[:, None] + bias[:, None], activation)

    made = [torch.rand(shape, dtype=torch.float64) - 0.3 for shape in ((4, 2, 3), (2,), (2,))]
    assert_third(ours, formula, made)


# --- fast paths against the reference ---------------------------------------------------------------------------------

SHAPES = [
    (64, 64, 4, 4), (5, 7, 7, 7), (2, 100, 16, 16), (3, 2, 33, 17), (1, 5, 40, 40), (9, 1, 5, 5), (33, 65, 3, 3),
    (3, 1000), (130, 20), (4, 6, 300), (2, 2, 3, 4, 5), (2, 3, 50, 50), (70, 3, 8, 8),
]  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["contiguous", "last", "gaps"])
def test_every_backend_equals_the_reference(layout, dtype, device):
    for name in backends(device):
        with ops.use_backend(name):
            for i, shape in enumerate(SHAPES):
                arguments = make(shape, dtype, device, layout)
                for use_batch in (True, False):
                    check(*arguments, use_batch, list(activations.ROWS)[(i + use_batch) % len(activations.ROWS)])
            for activation in activations.ROWS:
                y, da, _, bias, *running = make((6, 3, 5, 5), dtype, device, layout)
                check(y, da, None, bias.to(dtype), *running, True, activation)


@pytest.mark.parametrize("device", DEVICES)
def test_a_variance_far_below_the_mean(device):
    """Mean 1e4, std 1: E[x²] − E[x]² in fp32 would be off by 8 or more."""
    for layout in ("contiguous", "last"):
        y = laid(1e4 + torch.randn(32, 4, 16, 16, device=device), layout)
        v64, m64 = torch.var_mean(y.double(), (0, 2, 3), correction=0)
        for name in backends(device):
            with ops.use_backend(name):
                mean, var = forward(y, None, None, None, True, 0.0, None, 0.2)[1]
            # ours: half a unit of fp32 at 1e4, and nothing of it in the variance; torch's mean is rounded as it grows
            of_mean, of_var = (1e-2, 1e-4) if name == "reference" else (5e-4, 1e-6)
            assert float((mean - m64).abs().max()) <= of_mean
            assert float(((var - v64) / v64).abs().max()) <= of_var


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_bits_on_every_run_and_any_number_of_threads(device):
    before = torch.get_num_threads()
    try:
        sizes = (40, 24, 9, 9), (9, 130, 40, 41)  # a few pages of memory, and large ones
        for layout, shape in itertools.product(("contiguous", "last"), sizes):
            y, da, *rest = make(shape, device=device, layout=layout)
            check(y, da, *rest, True, "relu")
            for name in set(backends(device)) - {"reference"}:
                found = []
                for threads in (1, 2, 3):
                    torch.set_num_threads(threads)
                    with ops.use_backend(name):
                        out = forward(y, *rest[:2], None, True, 1e-5, "relu", 0.2)
                        found.append(
                            [*out, *batch_norm_act_backward(da, y, *rest[:2], out[1], True, 1e-5, "relu", 0.2)]
                        )
                for other in found[1:]:
                    assert all(torch.equal(a, b) for a, b in zip(found[0], other))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_statistics_as_torch(momentum, device):
    for name, dtype in itertools.product(backends(device), (torch.float32, torch.bfloat16)):
        y, *_, mean, var = make((5, 7, 6, 6), dtype, device)
        ours = [mean.to(dtype), var.to(dtype), torch.tensor(3, device=device)]
        norm = torch.nn.BatchNorm2d(7, momentum=momentum, device=device)
        norm.running_mean, norm.running_var, norm.num_batches_tracked = (
            ours[0].float(),
            ours[1].float(),
            ours[2].clone(),
        )
        with ops.use_backend(None if name == "cpu" else name):
            functional.batch_norm_act(y, *ours[:2], training=True, momentum=momentum, num_batches_tracked=ours[2])
        norm(y.float())
        assert ours[2] == norm.num_batches_tracked == 4
        for a, b in zip(ours, (norm.running_mean, norm.running_var)):
            torch.testing.assert_close(a, b.to(dtype))
            assert a._version > 0  # who has saved it for a backward is told, whatever has written it


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["contiguous", "last", "gaps"])
def test_values_whose_squares_overflow_are_as_finite_as_torchs(layout, device):
    large = torch.randn(8, 3, 6, 6, device=device)
    for y in (1e19 * large, 1e30 * large, 1e30 + 1e25 * large, torch.full_like(large, 1e30)):
        norm = torch.nn.BatchNorm2d(3, device=device)
        theirs = [norm(y) for _ in range(3)][-1]
        for name in backends(device):
            ours = torch.zeros(3, device=device), torch.ones(3, device=device)
            with ops.use_backend(None if name == "cpu" else name):
                for _ in range(3):  # an infinite running variance stays infinite
                    a = functional.batch_norm_act(laid(y, layout), *ours, training=True, activation=None)
            for mine, its in zip((a, *ours), (theirs, norm.running_mean, norm.running_var)):
                assert not mine.isnan().any() and bool((mine.isfinite() | its.isinf()).all()), name
            torch.testing.assert_close(ours[0], norm.running_mean, rtol=1e-3, atol=1e-3 * float(y.abs().max()))


@pytest.mark.parametrize("device", DEVICES)
def test_running_statistics_with_gaps_are_the_references(device):
    y, _, weight, bias, *start = make((5, 7, 6, 6), device=device)
    plain, gaps = [v.clone() for v in start], [torch.stack([v, v], -1)[:, 0] for v in start]
    for running in (plain, gaps):
        functional.batch_norm_act(y, *running, weight, bias, True)
    torch.testing.assert_close(gaps, plain)
    refused = [(gaps, "running_mean has gaps and is changed in place")]
    if device == "cpu":
        refused.append(([v.half() for v in plain], "running statistics that are not float32"))
    for (running, words), name in itertools.product(refused, set(backends(device)) - {"reference"}):
        with ops.use_backend(name), pytest.raises(RuntimeError, match=words):
            functional.batch_norm_act(y.to(running[0].dtype), *running, None, None, True)


@pytest.mark.parametrize("device", DEVICES)
def test_nan_spreads_over_its_channel_only(device):
    for name in backends(device):
        for layout in ("contiguous", "last"):
            y = laid(torch.randn(6, 3, 5, 5, device=device), layout)
            y[2, 1, 3, 3] = float("nan")
            for activation in activations.ROWS:
                leaf = y.clone().requires_grad_()
                with ops.use_backend(name):
                    a = functional.batch_norm_act(leaf, training=True, activation=activation)
                    a.sum().backward()
                for t in (a, leaf.grad):
                    assert t[:, 1].isnan().all()
                    assert t[:, ::2].isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
def test_activations_at_zero_and_infinity_as_torch(device):
    """A zero has no slope under relu; with given statistics an infinity or nan stays where it is."""
    y = torch.tensor([0.0, -0.0, 1.0, -1.0, float("inf"), -float("inf"), float("nan"), 0.2], device=device).repeat(2, 3)
    given = torch.stack((torch.zeros(24, device=device), torch.ones(24, device=device)))
    for name in backends(device):
        for activation in activations.ROWS:
            with ops.use_backend(name):
                a = normalise_act(y, None, None, given, 0.0, activation, 0.2)
                ones = torch.ones_like(y[:, :4])
                dy = batch_norm_act_backward(ones, y[:, :4], None, None, given[:, :4], False, 0.0, activation, 0.2)[0]
            leaf = y[:, :4].clone().requires_grad_()
            (wanted,) = torch.autograd.grad(reference.activate(leaf, activation), leaf, ones)
            kept = ~y.isinf() if activation == "gelu" else slice(None)  # torch's own is nan at infinity on some CPUs
            torch.testing.assert_close(a[kept], reference.activate(y, activation)[kept], equal_nan=True)
            torch.testing.assert_close(dy, wanted)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 3), (2, 3, 0)])
def test_empty_sizes_as_torch(shape, device):
    for name in backends(device):
        mean, var = torch.zeros(shape[1], device=device), torch.ones(shape[1], device=device)
        weight = torch.ones(shape[1], device=device, requires_grad=True)
        y = torch.randn(shape, device=device, requires_grad=True)
        with ops.use_backend(name):
            a = functional.batch_norm_act(y, mean, var, weight, None, True)
            a.sum().backward()
        assert a.shape == y.grad.shape == y.shape
        assert not weight.grad.any()
        assert not mean.any() and (var == 1).all()  # unchanged


# --- the operators ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["contiguous", "last", "gaps"])
def test_opcheck(layout, device):
    y, da, weight, bias, mean, var = make((3, 4, 2, 3), device=device, layout=layout)
    leaves = [v.detach().requires_grad_() for v in (y, weight, bias)]
    options, given = (1e-5, "tanh", 0.2), torch.stack((mean, var))
    counter = torch.tensor(3, device=device)
    torch.library.opcheck(batch_norm_act.overload, (*leaves, mean, var, counter, 0.1, *options))
    torch.library.opcheck(normalise_act.overload, (*leaves, given.clone().requires_grad_(), *options))
    torch.library.opcheck(batch_norm_act_backward.overload, (da, *leaves, given, True, *options))
    double = y, given, da, y, weight, bias, given, True, *options
    torch.library.opcheck(batch_norm_act_double_backward.overload, double)


@pytest.mark.usefixtures("inductor")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("training", [True, False])
def test_compiled_equals_eager(training, device):
    y, da, weight, bias, mean, var = make((6, 4, 5, 3), device=device)

    def step(y, weight, bias, mean, var):
        return functional.batch_norm_act(2 * y, mean, var, weight, bias, training).sin()

    results = []
    for function in (step, torch.compile(step, fullgraph=True)):
        leaves = [v.clone().requires_grad_() for v in (y, weight, bias)]
        running = mean.clone(), var.clone()
        a = function(*leaves, *running)
        results.append([a.detach(), *torch.autograd.grad(a, leaves, da), *running])
    for got, wanted in zip(*results):
        torch.testing.assert_close(got, wanted)
    assert (results[1][-2] != mean).all() == training


def test_autocast_leaves_the_dtype_and_half_parameters_keep_theirs():
    y, _, weight, *_ = make((6, 4, 5, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert functional.batch_norm_act(y, weight=weight, training=True).dtype == torch.float32
        assert functional.batch_norm_act(y.bfloat16(), weight=weight, training=True).dtype == torch.bfloat16
    half = weight.bfloat16().requires_grad_()
    running = weight.bfloat16(), weight.bfloat16().abs()
    functional.batch_norm_act(y.bfloat16(), *running, half, None, True).sum().backward()
    assert half.grad.dtype == running[0].dtype == torch.bfloat16


def test_arguments_are_checked():
    y, _, weight, bias, mean, var = make((6, 4, 5, 3))
    run = functional.batch_norm_act
    for error, words, arguments, options in (
        (TypeError, "y: got list, needs a torch.Tensor", ([1.0],), {}),
        (TypeError, "y: got dtype torch.int64", (y.long(),), {}),
        (ValueError, r"y: got shape \(4,\), needs \[batch, channels", (weight,), {}),
        (ValueError, r"y: got shape \(1, 4\), needs more than one value per channel", (y[:1, :, 0, 0],), {}),
        (ValueError, r"weight: got shape \(3,\), needs \(4,\)", (y, mean, var, weight[:3]), {}),
        (TypeError, "bias: got dtype torch.float16, needs torch.float32", (y, mean, var, weight, bias.half()), {}),
        (ValueError, "running_mean: got None, needs a tensor", (y,), {"training": False}),
        (ValueError, "running_var: got device meta, needs cpu", (y, mean, var.to("meta")), {}),
        (ValueError, "activation: got 'ulu', needs one of 'relu'", (y,), {"activation": "ulu"}),
        (ValueError, "negative_slope: got nan", (y,), {"negative_slope": float("nan")}),
        (ValueError, "eps: got -1.0", (y,), {"eps": -1.0}),
        (ValueError, "momentum: got 2", (y, mean, var), {"momentum": 2}),
    ):
        with pytest.raises(error, match=words):
            run(*arguments, **{"training": True, **options})
    with pytest.raises(ValueError, match=r"da: got shape \(5, 4, 5, 3\), needs \(6, 4, 5, 3\)"):
        torch.ops.ganfast.batch_norm_act_backward(y[1:], y, None, None, torch.stack((mean, var)), True, 1e-5, None, 0.2)
    with pytest.raises(ValueError, match="running_mean: requires grad, needs to be a buffer"):
        run(y, mean.clone().requires_grad_(), var, training=True)
    with pytest.raises(ValueError, match=r"num_batches_tracked: got .* needs one int64"):
        run(y, mean, var, training=True, num_batches_tracked=torch.tensor(1.0))


@pytest.mark.parametrize("layout", ["contiguous", "last"])
def test_graph_replay_equals_eager(layout, graph_device):
    for name in backends(graph_device):
        y, da, weight, bias, *start = make((16, 40, 9, 9), device=graph_device, layout=layout)
        mean, var = (v.clone() for v in start)

        def step(y=y, da=da, weight=weight, bias=bias, mean=mean, var=var):
            a = functional.batch_norm_act(y, mean, var, weight, bias, True)
            moments = torch.stack((mean, var))
            return a, batch_norm_act_backward(da, y, weight, bias, moments, True, 1e-5, "relu", 0.2)[0]

        with ops.use_backend(name):
            eager, replay = captured(step)
            y.copy_(torch.randn_like(y))
            found = []
            for run in (replay, eager):
                mean.copy_(start[0]), var.copy_(start[1])
                found.append([t.clone() for t in (*run(), mean, var)])
        assert all(torch.equal(a, b) for a, b in zip(*found))
