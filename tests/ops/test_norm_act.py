"""norm_act: truth is the reference in fp64, and its against torch's own layers; fast paths, layouts, bits."""

import pytest
import torch
import torch.nn.functional as F
from kinks import away_from_kinks
from ops.channels import laid
from torch.autograd import gradcheck, gradgradcheck

from ganfast import activations, functional, reference
from ganfast.ops.norm_act import norm_act, norm_act_backward, norm_act_double_backward
from ganfast.reference.norm_act import moments_of

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

    thirds = []
    for function in (lambda y, w, b: functional.norm_act(y, 2, w, b, activation=activation)[0], formula):
        leaves = [v.clone().requires_grad_() for v in made]
        value = function(*leaves).pow(3).sum()
        for _ in range(2):
            value = sum(g.square().sum() for g in torch.autograd.grad(value, leaves, create_graph=True))
        thirds.append(torch.autograd.grad(value, leaves))
    for got, wanted in zip(*thirds):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


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


# --- the operators ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["last", "gaps"])
def test_opcheck(layout, device):
    shape = 3, 4, 2, 3
    y, da, weight, bias = (laid(torch.randn(shape, device=device), layout).detach().requires_grad_() for _ in range(4))
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
