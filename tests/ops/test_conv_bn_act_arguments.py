"""What conv_bn_act refuses, and how it says so."""

import pytest
import torch

from ganfast import functional
from ganfast.ops.conv_bn_act import conv_bn_act, conv_bn_act_backward

X = torch.randn(2, 3, 5, 5)
W = torch.randn(4, 3, 3, 3)
V = torch.ones(3)
GOOD = {
    "x": X, "scale": None, "shift": None, "weight": W, "bias": None, "transposed": False, "stride": (1, 1),
    "padding": (0, 0), "output_padding": (0, 0), "in_activation": None, "in_slope": 0.0, "out_activation": None,
    "out_slope": 0.0, "statistics": False,
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
        ({"bias": torch.ones(4).half()}, TypeError, "bias: got dtype torch.float16, needs torch.float32 as x"),
        ({"scale": V}, ValueError, "scale, shift: got one of them, needs both or neither"),
        ({"scale": V, "shift": V[:2]}, ValueError, r"shift: got shape \(2,\), needs \(3,\)"),
        ({"scale": V.half(), "shift": V}, TypeError, "scale: got dtype torch.float16, needs torch.float32 beside x"),
        ({"in_activation": "relu"}, ValueError, "in_activation: got 'relu', needs None without scale and shift"),
        ({"out_activation": "gelu"}, ValueError, "out_activation: got 'gelu', needs one of 'relu', 'leaky_relu'"),
        ({"out_activation": "leaky_relu", "out_slope": -0.1}, ValueError, "out_slope: got -0.1, needs a finite number"),
        (
            {"out_activation": "tanh", "statistics": True},
            ValueError,
            "out_activation: got 'tanh', needs None with stat",
        ),
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
        conv_bn_act(*arguments)


def test_the_dispatcher_checks_too():
    with pytest.raises(ValueError, match=r"weight: got shape \(4, 2, 3, 3\), needs \[C_out, 3, kH, kW\]"):
        torch.ops.ganfast.conv_bn_act(*(GOOD | {"weight": W[:, :2]}).values())


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"dy": None}, ValueError, "dy, dmean, dvar: got None for all"),
        ({"dy": torch.ones(2, 4, 3, 2)}, ValueError, r"dy: got shape \(2, 4, 3, 2\), needs \(2, 4, 3, 3\)"),
        ({"dy": torch.ones(2, 4, 3, 3).half()}, TypeError, "dy: got dtype torch.float16"),
        ({"dmean": torch.ones(4)}, ValueError, "y: got None, needs the output"),
        ({"dvar": torch.ones(4), "y": torch.ones(2, 4, 3, 3)}, ValueError, "mean: got None, needs the mean of y"),
        ({"dmean": torch.ones(3)}, ValueError, r"dmean: got shape \(3,\), needs \(4,\)"),
        ({"out_activation": "relu"}, ValueError, "y: got None, needs the output"),
        ({"needed": [False] * 4}, ValueError, "needed: got .* one of them True"),
        ({"needed": [True] * 3}, ValueError, "needed: got .* needs four"),
    ],
)
def test_bad_arguments_of_the_backward(bad, error, message):
    good = {
        "dy": torch.ones(2, 4, 3, 3), "dmean": None, "dvar": None, "x": X, "scale": None, "shift": None, "weight": W,
        "y": None, "mean": None, **dict(list(GOOD.items())[5:-1]), "needed": [True, False, True, True],
    }  # fmt: skip
    conv_bn_act_backward(*good.values())
    with pytest.raises(error, match=message):
        conv_bn_act_backward(*(good | bad).values())


def test_the_functions_name_what_they_are_given():
    with pytest.raises(ValueError, match="activation: got 'elu', needs"):
        functional.conv_bn_act(X, W, activation="elu")
    with pytest.raises(ValueError, match=r"stride: got \(0, 0\), needs two numbers"):
        functional.conv_bn_act(X, W, stride=0)
    with pytest.raises(ValueError, match=r"weight: got shape"):
        functional.conv_transpose_bn_relu(X, W)
