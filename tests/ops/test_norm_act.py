"""norm_act: truth is the reference in fp64, and its against torch's own layers; fast paths, layouts, bits."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from graphed import captured
from kinks import away_from_kinks
from ops.channels import BOUNDS, DTYPES, assert_third, backends, laid
from torch.autograd import gradcheck, gradgradcheck

from ganfast import activations, functional, ops, reference
from ganfast.ops.norm_act import norm_act, norm_act_backward, norm_act_double_backward
from ganfast.reference.norm_act import moments_of
from ganfast.reference.norm_act import norm_act_backward as reference_backward

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
FORMS = [None, "channel", "sample", "pixel"]  # of a parameter: absent, [C], [N, C], like y


def parameter(form, shape, **options):
    size = {"channel": shape[1:2], "sample": shape[:2], "pixel": shape}.get(form)
    return None if size is None else torch.randn(size, **options)


def against(v, y):
    """A parameter as torch multiplies it with y."""
    return v if v is None or v.dim() > 2 else v.reshape(*([1] if v.dim() == 1 else []), *v.shape, *[1] * (y.dim() - 2))


def torch_composition(y, groups, weight=None, bias=None, eps=1e-5, activation=None):
    """torch's normalisations without parameters, those behind it, and the activation."""
    x = F.group_norm(y, groups, eps=eps) if groups else F.batch_norm(y, None, None, training=True, eps=eps)
    x = x if weight is None else x * against(weight, y)
    return reference.activate(x if bias is None else x + against(bias, y), activation)


# --- derivatives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("groups", [0, 1, 2, 4])
def test_derivatives_to_second_order(groups, given, form, device):
    """Each activation with some of the forms of parameters; moments are results with derivatives of their own."""
    shape, turn = (2, 4, 2), FORMS.index(form)
    names = list(activations.ROWS)[(turn + groups + given) % 4 :: 4]
    options = {"dtype": torch.float64, "device": device}
    for name in names:
        moments = moments_of(torch.randn(shape, **options), groups) if given else None

        def draw():
            return torch.randn(shape, **options), *(parameter(f, shape, **options) for f in (form, FORMS[turn - 1]))

        def before_activation(drawn, moments=moments):
            return [norm_act(*drawn, moments, groups, 1e-5, None, 0.2)[0]]

        def run(y, weight, bias, moments=moments, name=name):
            a, found = functional.norm_act(y, groups, weight, bias, moments, activation=name)
            return a if given else (a, found)

        drawn = [v if v is None else v.requires_grad_() for v in away_from_kinks(draw, before_activation)]
        assert gradcheck(run, drawn)
        assert gradgradcheck(run, drawn)


@pytest.mark.parametrize("activation", [None, "leaky_relu", "tanh"])
def test_a_third_derivative(activation):
    """Against the formula by torch."""
    made = [torch.rand(shape, dtype=torch.float64) - 0.3 for shape in ((2, 4, 3), (4,), (2, 4, 3))]

    def formula(y, weight, bias):
        v, m = torch.var_mean(y.view(2, 2, -1), -1, correction=0, keepdim=True)
        x = ((y.view(2, 2, -1) - m) / (v + 1e-5).sqrt()).view(y.shape)
        return reference.activate(x * weight[:, None] + bias, activation)

    assert_third(lambda y, w, b: functional.norm_act(y, 2, w, b, activation=activation)[0], formula, made)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("groups", [0, 1, 3, 6])
def test_values_as_torchs(groups, device):
    shape = (4, 6, 5, 3)
    y = torch.randn(shape, dtype=torch.float64, device=device)
    for form, other in zip(FORMS, FORMS[::-1]):
        weight, bias = (parameter(f, shape, dtype=torch.float64, device=device) for f in (form, other))
        a, moments = functional.norm_act(y, groups, weight, bias, activation="relu")
        torch.testing.assert_close(a, torch_composition(y, groups, weight, bias, activation="relu"))
        again, same = functional.norm_act(y, groups, weight, bias, moments, activation="relu")
        assert same is moments and torch.equal(a, again)


# --- fast paths against the reference ---------------------------------------------------------------------------------

SHAPES = [
    (2, 6, 8, 8), (3, 8, 33, 17), (1, 4, 190, 180), (5, 24, 7, 7), (2, 3, 1000), (2, 130, 5, 4), (9, 4, 3, 3),
    (2, 32, 2), (3, 4, 2, 3, 4),
]  # fmt: skip
PAIRS = [
    (None, None),
    ("channel", "channel"),
    ("sample", "sample"),
    ("pixel", "pixel"),
    (None, "sample"),
    ("channel", None),
]


def check(y, da, weight, bias, moments, *options):
    """Forward and backward against fp64; a sum is relative to the sum of its terms' magnitudes."""
    wide = [None if v is None else v.double() for v in (y, weight, bias, moments)]
    groups, eps, *_ = options
    flat = reference.norm_act(*wide, groups, eps, None, 0.2)[0]
    da = da.masked_fill(flat.abs() < 1e-4, 0.0)  # a kink may lie on either side of what has been rounded
    a, found = norm_act(y, weight, bias, moments, *options)
    a64, found64 = reference.norm_act(*wide, *options)
    given = moments is not None
    if given:
        assert found.numel() == 0
        found, found64 = moments, wide[3]
    else:
        assert float((found[0] - found64[0]).abs().max()) <= 1e-6 * (1 + float(found64[0].abs().max()))
        torch.testing.assert_close(found[1].double(), found64[1], rtol=3e-6, atol=0.0)
    gradients = norm_act_backward(da, y, weight, bias, found, given, *options)
    truth = reference_backward(da.double(), *wide[:3], found64, given, *options)
    bound = BOUNDS[y.dtype]
    assert (a.dtype, a.shape, a.is_contiguous()) == (y.dtype, y.shape, gradients[0].is_contiguous())
    assert float((a.double() - a64).norm()) <= bound * float(a64.norm() + a64.numel() ** 0.5)
    spread = (1.0 if weight is None else weight.abs().max()) / (found64[1] + eps).sqrt().min()
    size = float(truth[0].norm() + spread * da.double().norm())
    assert float((gradients[0].double() - truth[0]).norm()) <= bound * size
    for v, got, wanted in zip((weight, bias), gradients[1:], truth[1:]):
        assert got.numel() == 0 if v is None else got.shape == v.shape
        if v is not None:
            per_pixel = bound * float(wanted.norm() + da.double().norm()) if v.dim() > 2 else 0.0
            terms = 1e-6 * 4 * float(da.double().abs().sum())
            assert float((got.double() - wanted).norm()) <= terms + per_pixel


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["contiguous", "last", "gaps"])
def test_every_backend_equals_the_reference(layout, dtype, device):
    """Each shape with each number of groups; forms of parameters, activations and given moments in turns."""
    turn, names = 0, list(activations.ROWS)
    for shape in SHAPES:
        for groups in {0, 1, shape[1] // 2 if shape[1] % 2 == 0 else 1, shape[1]}:
            for forms in PAIRS:
                turn += 1
                y, da = (laid(torch.randn(shape, device=device), layout) for _ in range(2))
                y, da = (2 * y + 3).to(dtype), da.to(dtype)
                weight, bias = (parameter(f, shape, device=device) for f in forms)
                if forms[0] == "pixel":
                    weight, bias = (laid(v, layout).to(dtype) for v in (weight, bias))
                moments = moments_of(y.float(), groups) if turn % 3 == 0 else None
                for name in backends(device)[:-1]:
                    if runs_on(name, y, weight, bias, moments, groups):
                        with ops.use_backend(name):
                            check(y, da, weight, bias, moments, groups, 1e-5, names[turn % len(names)], 0.2)


def runs_on(name, y, weight, bias, moments, groups):
    """Whether the backend takes these; what it leaves to the reference has a reason in words."""
    backend = next(b for b in norm_act.backends if b.name == name)
    answer = backend.supports(y, weight, bias, moments, groups, 1e-5, None, 0.2)
    few = y[0, 0].numel() < 16 and groups not in (0, y.shape[1])
    assert answer is True or (name == "cpu" and few and "go through the reference" in answer)
    return answer is True


def test_what_the_cpu_leaves_to_the_reference():
    if "cpu" not in backends("cpu"):
        pytest.skip("ganfast._C is not built")
    y = torch.randn(2, 4, 3, 5)
    for words, arguments in (
        ("float64 goes through the reference", (y.double(), None, None, None, 1)),
        ("one of weight and bias like y, and not the other", (y, y, None, None, 1)),
        ("weight and bias like y, of another dtype", (y.half(), y, y, None, 1)),
        ("groups of planes of less than 16 pixels", (y, y[0, :, 0, 0], None, None, 2)),
        ("an empty tensor", (y[:0], None, None, None, 2)),
    ):
        with ops.use_backend("cpu"), pytest.raises(RuntimeError, match=words):
            norm_act(*arguments, 1e-5, "relu", 0.2)
        a, _ = norm_act(*arguments, 1e-5, "relu", 0.2)
        assert a.shape == arguments[0].shape


@pytest.mark.parametrize("device", DEVICES)
def test_a_variance_far_below_the_mean(device):
    """Mean 1e4, std 1: E[x²] − E[x]² in fp32 would be off by 8 or more."""
    for layout, groups in itertools.product(("contiguous", "last"), (0, 1, 2, 4)):
        y = laid(1e4 + torch.randn(3, 4, 40, 40, device=device), layout)
        mean64, var64 = moments_of(y.double(), groups)
        for name in backends(device)[:-1]:
            with ops.use_backend(name):
                mean, var = norm_act(y, None, None, None, groups, 0.0, None, 0.2)[1]
            assert float((mean - mean64).abs().max()) <= 5e-4
            assert float(((var - var64) / var64).abs().max()) <= 1e-6


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_bits_on_every_run_and_any_number_of_threads(device):
    before, options = torch.get_num_threads(), (1e-5, "relu", 0.2)
    try:
        for layout, groups, (shape, form) in itertools.product(
            ("contiguous", "last"), (0, 1, 24), (((5, 24, 9, 9), "channel"), ((1, 48, 90, 80), "pixel"))
        ):
            y, da = (laid(torch.randn(shape, device=device), layout) for _ in range(2))
            weight, bias = (parameter(form, shape, device=device) for _ in range(2))
            for name in backends(device)[:-1]:
                found = []
                for threads in (1, 2, 3):
                    torch.set_num_threads(threads)
                    with ops.use_backend(name):
                        a, moments = norm_act(y, weight, bias, None, groups, *options)
                        found.append(
                            [a, moments, *norm_act_backward(da, y, weight, bias, moments, False, groups, *options)]
                        )
                for other in found[1:]:
                    assert all(torch.equal(a, b) for a, b in zip(found[0], other))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("device", DEVICES)
def test_nan_spreads_over_its_statistics_only(device):
    for name, layout, groups in itertools.product(backends(device), ("contiguous", "last"), (0, 1, 2, 6)):
        y = laid(torch.randn(4, 6, 5, 5, device=device), layout)
        y[2, 1, 3, 3] = float("nan")
        touched = torch.zeros_like(y, dtype=torch.bool)
        of = (slice(None), 1) if groups == 0 else (2, slice(0, 6) if groups == 1 else slice(0, 3) if groups == 2 else 1)
        touched[of] = True
        for activation in activations.ROWS:
            leaf = y.clone().requires_grad_()
            with ops.use_backend(name):
                a, _ = functional.norm_act(leaf, groups, activation=activation)
                a.sum().backward()
            for t in (a, leaf.grad):
                assert bool((t.isnan() == touched).all()), (name, groups, activation)


@pytest.mark.parametrize("device", DEVICES)
def test_values_whose_squares_overflow_stay_finite(device):
    large = torch.randn(2, 3, 6, 6, device=device)
    for name, layout, groups in itertools.product(backends(device)[:-1], ("contiguous", "last"), (0, 1, 3)):
        for y in (1e19 * large, 1e30 * large, 1e30 + 1e25 * large, torch.full_like(large, 1e30)):
            with ops.use_backend(name):
                assert functional.norm_act(laid(y, layout), groups)[0].isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(0, 4, 4, 4), (2, 0, 3), (2, 4, 0)])
def test_empty_sizes(shape, device):
    for groups in (0, 1, 2):
        y = torch.randn(shape, device=device, requires_grad=True)
        weight = torch.ones(shape[1], device=device, requires_grad=True)
        a, moments = functional.norm_act(y, groups, weight)
        a.sum().backward()
        assert a.shape == y.grad.shape == y.shape
        assert moments.shape == ((2, shape[0], groups) if groups else (2, 1, shape[1]))
        assert not weight.grad.any()


# --- the operators ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    shape = 3, 4, 2, 3
    y, da, weight, bias = (laid(torch.randn(shape, device=device), "last").detach().requires_grad_() for _ in range(4))
    options = (2, 1e-5, "tanh", 0.2)
    moments = moments_of(y.detach(), 2)
    gain = torch.randn(4, device=device)
    torch.library.opcheck(norm_act.overload, (y, weight, bias, None, *options))
    torch.library.opcheck(norm_act.overload, (y, gain, None, moments, *options))
    torch.library.opcheck(norm_act_backward.overload, (da, y, weight, bias, moments, False, *options))
    torch.library.opcheck(norm_act_backward.overload, (da, y, gain.requires_grad_(), None, moments, True, *options))
    tensors = y.detach(), weight.detach(), None, da.detach(), y.detach(), weight.detach(), None
    torch.library.opcheck(norm_act_double_backward.overload, (*tensors, moments, False, *options))


@pytest.mark.parametrize("device", DEVICES)
def test_compiled_equals_eager(device):
    y, da = (torch.randn(6, 4, 5, 3, device=device) for _ in range(2))
    weight, bias = torch.randn(6, 4, device=device), torch.randn(4, device=device)

    def step(y, weight, bias):
        a, moments = functional.norm_act(2 * y, 4, weight, bias, activation="relu")
        return a.sin() * moments.sum()

    results = []
    for function in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        leaves = [v.clone().requires_grad_() for v in (y, weight, bias)]
        a = function(*leaves)
        results.append([a.detach(), *torch.autograd.grad(a, leaves, da)])
    for got, wanted in zip(*results):
        torch.testing.assert_close(got, wanted)


def test_arguments_are_checked():
    y, weight = torch.randn(6, 4, 5, 3), torch.randn(4)
    moments = moments_of(y, 2)
    for error, words, arguments in (
        (TypeError, "y: got list, needs a torch.Tensor", ([1.0], 1)),
        (TypeError, "groups: got float, needs a whole number", (y, 2.0)),
        (ValueError, "groups: got 3, needs a divisor of y's 4 channels, or 0 for the batch", (y, 3)),
        (ValueError, r"weight: got shape \(3,\), needs \(4,\), \(6, 4\) or \(6, 4, 5, 3\)", (y, 2, weight[:3])),
        (TypeError, "bias: got dtype torch.float16, needs torch.float32", (y, 2, None, weight.half())),
        (ValueError, r"moments: got shape \(2, 6, 2\), needs \(2, 1, 4\)", (y, 0, None, None, moments)),
        (ValueError, "moments: requires grad", (y, 2, None, None, moments.clone().requires_grad_())),
        (ValueError, "needs more than one value for each mean", (y[..., :1, :1], 4)),
        (ValueError, "eps: got -1.0", (y, 2, None, None, None, -1.0)),
        (ValueError, "activation: got 'ulu', needs one of 'relu'", (y, 2, None, None, None, 1e-5, "ulu")),
    ):
        with pytest.raises(error, match=words):
            functional.norm_act(*arguments)
    with pytest.raises(ValueError, match=r"da: got shape \(5, 4, 5, 3\), needs \(6, 4, 5, 3\)"):
        norm_act_backward(y[1:], y, None, None, moments, False, 2, 1e-5, None, 0.2)


def test_autocast_leaves_the_dtype_and_half_parameters_keep_theirs():
    y, weight = torch.randn(6, 4, 5, 3), torch.randn(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert functional.norm_act(y, 4, weight)[0].dtype == torch.float32
        a, moments = functional.norm_act(y.bfloat16(), 4, weight)
    assert (a.dtype, moments.dtype) == (torch.bfloat16, torch.float32)
    for half in (weight.bfloat16(), y.bfloat16()):
        half.requires_grad_()
        functional.norm_act(y.bfloat16(), 4, half, half)[0].sum().backward()
        assert half.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("layout", ["contiguous", "last"])
def test_graph_replay_equals_eager(layout, graph_device):
    for name in backends(graph_device):
        y, da = (laid(torch.randn(6, 40, 9, 9, device=graph_device), layout) for _ in range(2))

        def step(y=y, da=da):
            a, moments = functional.norm_act(y, 40, activation="relu")
            return a, norm_act_backward(da, y, None, None, moments, False, 40, 1e-5, "relu", 0.2)[0]

        with ops.use_backend(name):
            eager, replay = captured(step)
            y.copy_(torch.randn_like(y))
            found = [[t.clone() for t in run()] for run in (replay, eager)]
        assert all(torch.equal(a, b) for a, b in zip(*found))
