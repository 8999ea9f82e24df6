"""What conv_bn_act refuses, and how it says so."""

import pytest
import torch

from ganfast import functional
from ganfast.ops.conv_bn_act import conv_act, conv_bn_act, conv_bn_act_backward

X = torch.randn(2, 3, 5, 5)
W = torch.randn(4, 3, 3, 3)
V, M = torch.ones(3), torch.ones(2, 3)
GOOD = {
    "x": X, "moments": None, "gain": None, "offset": None, "weight": W, "bias": None, "transposed": False,
    "stride": (1, 1), "padding": (0, 0), "output_padding": (0, 0), "in_eps": 0.0, "in_activation": None,
    "in_slope": 0.0, "activation": None, "slope": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"x": 3}, TypeError, "x: got int, needs a torch.Tensor"),
        ({"x": X.int()}, TypeError, "x: got dtype torch.int32, needs float32"),
        ({"x": X[0]}, ValueError, r"x: got shape \(3, 5, 5\), needs \[batch, channels, height, width\]"),
        ({"weight": W.double()}, TypeError, "weight: got dtype torch.float64, needs torch.float32 as x"),
        ({"weight": W[:, :2]}, ValueError, r"weight: got shape \(4, 2, 3, 3\), needs \[C_out, 3, kH, kW\]"),
        ({"weight": W[0]}, ValueError, r"weight: got shape \(3, 3, 3\), needs"),
        ({"weight": W[:0]}, ValueError, r"weight: got shape \(0, 3, 3, 3\), needs"),
        ({"transposed": True}, ValueError, r"weight: got shape \(4, 3, 3, 3\), needs \[3, C_out, kH, kW\] for x of 3"),
        ({"bias": torch.ones(3)}, ValueError, r"bias: got shape \(3,\), needs \(4,\)"),
        ({"bias": torch.ones(4).half()}, TypeError, "bias: got dtype torch.float16, needs torch.float32"),
        ({"gain": V}, ValueError, "moments: got None, needs those of x beside gain"),
        ({"in_activation": "relu"}, ValueError, "moments: got None, needs those of x beside gain"),
        ({"moments": M[:1]}, ValueError, r"moments: got shape \(1, 3\), needs \(2, 3\)"),
        ({"moments": M.half()}, TypeError, "moments: got dtype torch.float16, needs torch.float32 beside x"),
        ({"moments": M, "gain": V[:2]}, ValueError, r"weight: got shape \(2,\), needs \(3,\)"),
        ({"activation": "ulu"}, ValueError, "activation: got 'ulu', needs one of 'relu', 'leaky_relu'"),
        ({"activation": "silu"}, ValueError, "activation: got 'silu', needs one of 'relu', 'leaky_relu', 'tanh'"),
        ({"activation": "leaky_relu", "slope": -0.1}, ValueError, "negative_slope: got -0.1, needs a finite number"),
        ({"stride": (0, 1)}, ValueError, r"stride: got \(0, 1\), needs two numbers, 1 or more"),
        ({"padding": (-1, 0)}, ValueError, r"padding: got \(-1, 0\), needs two numbers, 0 or more"),
        ({"padding": (1,)}, ValueError, r"padding: got \(1,\), needs two numbers"),
        ({"output_padding": (1, 0), "stride": (2, 2)}, ValueError, "output_padding: .* needs 0 without transposed"),
        (
            {"output_padding": (2, 0), "stride": (2, 2), "transposed": True, "weight": W.transpose(0, 1)},
            ValueError,
            r"output_padding: got \(2, 0\), needs less than the stride \(2, 2\)",
        ),
        ({"weight": torch.ones(4, 3, 6, 6)}, ValueError, r"x: got \(5, 5\) pixels, which leave \(0, 0\) with kernel"),
        (
            {"weight": torch.ones(3, 4, 1, 1), "padding": (3, 3), "transposed": True},
            ValueError,
            r"x: got \(5, 5\) pixels, which leave \(-1, -1\)",
        ),
    ],
)
def test_bad_arguments(bad, error, message):
    arguments = tuple((GOOD | bad).values())
    with pytest.raises(error, match=message):
        conv_act(*arguments)


def test_the_dispatcher_checks_too():
    with pytest.raises(ValueError, match=r"weight: got shape \(4, 2, 3, 3\), needs \[C_out, 3, kH, kW\]"):
        torch.ops.ganfast.conv_act(*(GOOD | {"weight": W[:, :2]}).values())


RUNNING = {"bn_weight": None, "bn_bias": None, "running_mean": None, "running_var": None, "batches": None}


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"bn_weight": V}, ValueError, r"weight: got shape \(3,\), needs \(4,\)"),
        ({"running_mean": torch.ones(4)}, ValueError, "running_mean, running_var: got one of them, needs both"),
        ({"batches": torch.tensor(1.0)}, ValueError, "num_batches_tracked: got .* needs one int64"),
        ({"momentum": 2.0}, ValueError, "momentum: got 2.0"),
        ({"x": X[:1], "weight": torch.ones(4, 3, 5, 5)}, ValueError, "x: got one value per channel in training"),
    ],
)
def test_bad_arguments_of_a_normalisation(bad, error, message):
    names = list(GOOD.items())
    behind = {"momentum": 0.1, "eps": 1e-5, "activation": "silu", "slope": 0.0, "apply": True}
    good = dict([*names[:6], *RUNNING.items(), *names[6:13], *behind.items()])
    conv_bn_act(*good.values())
    with pytest.raises(error, match=message):
        conv_bn_act(*(good | bad).values())


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"da": None}, ValueError, "da, dz, dmoments: got None for all"),
        ({"da": torch.ones(2, 4, 3, 2)}, ValueError, r"da: got shape \(2, 4, 3, 2\), needs \(2, 4, 3, 3\)"),
        ({"da": torch.ones(2, 4, 3, 3).half()}, TypeError, "da: got dtype torch.float16"),
        ({"dmoments": torch.ones(2, 4)}, ValueError, "moments: got None, needs those of z beside dz and dmoments"),
        ({"dmoments": torch.ones(2, 3)}, ValueError, r"dmoments: got shape \(2, 3\), needs \(2, 4\)"),
        ({"out_moments": torch.ones(2, 4)}, ValueError, "y: got None, needs the output"),
        ({"activation": "relu"}, ValueError, "y: got None, needs the output"),
        ({"needed": [False] * 4}, ValueError, "needed: got .* one of them True"),
        ({"needed": [True] * 3}, ValueError, "needed: got .* needs four"),
    ],
)
def test_bad_arguments_of_the_backward(bad, error, message):
    good = {
        "da": torch.ones(2, 4, 3, 3), "dz": None, "dmoments": None, **dict(list(GOOD.items())[:5]), "bn_weight": None,
        "bn_bias": None, "y": None, "out_moments": None, **dict(list(GOOD.items())[6:13]), "eps": 0.0,
        "activation": None, "slope": 0.0, "needed": [True, False, True, True],
    }  # fmt: skip
    conv_bn_act_backward(*good.values())
    with pytest.raises(error, match=message):
        conv_bn_act_backward(*(good | bad).values())


def test_the_functions_name_what_they_are_given():
    with pytest.raises(ValueError, match="activation: got 'ulu', needs"):
        functional.conv_bn_act(X, W, activation="ulu")
    with pytest.raises(ValueError, match=r"stride: got \(0, 0\), needs two numbers"):
        functional.conv_bn_act(X, W, stride=0)
    with pytest.raises(ValueError, match=r"weight: got shape"):
        functional.conv_transpose_bn_relu(X, W)
