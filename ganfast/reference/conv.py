"""A (transposed) convolution, batch normalisation and an activation in one call, in plain PyTorch."""

import torch
import torch.nn.functional as F

ACTIVATIONS = ("relu", "leaky_relu", "tanh", None)


def activate(x, activation, negative_slope=0.2):
    """The activation by name; None leaves x alone."""
    if activation is None:
        return x
    if activation == "relu":
        return F.relu(x)
    if activation == "leaky_relu":
        return F.leaky_relu(x, negative_slope)
    if activation == "tanh":
        return torch.tanh(x)
    raise ValueError(f"activation: got {activation!r}, needs one of 'relu', 'leaky_relu', 'tanh' or None")


def _normalise(y, bn_weight, bn_bias, running_mean, running_var, training, momentum, eps):
    """Batch normalisation where there is a bn_weight; updates the running statistics in place in training."""
    if bn_weight is None:
        return y
    use_batch = training or running_mean is None
    return F.batch_norm(y, running_mean, running_var, bn_weight, bn_bias, use_batch, momentum, eps)


def conv_transpose_bn_relu(
    x, weight, bias, bn_weight, bn_bias, running_mean, running_var, training, momentum, eps, stride, padding,
    output_padding, activation="relu", negative_slope=0.2,
):  # fmt: skip
    """act(batch_norm(conv_transpose2d(x, weight) + bias)); without batch_norm where bn_weight is None.

    x [N, C_in, H, W], weight [C_in, C_out, kH, kW], bias, bn_weight, bn_bias, running_mean, running_var [C_out].
    """
    y = F.conv_transpose2d(x, weight, bias, stride, padding, output_padding)
    y = _normalise(y, bn_weight, bn_bias, running_mean, running_var, training, momentum, eps)
    return activate(y, activation, negative_slope)


def conv_act(
    x, weight, bias, bn_weight, bn_bias, running_mean, running_var, training, momentum, eps, stride, padding,
    activation="leaky_relu", negative_slope=0.2,
):  # fmt: skip
    """act(batch_norm(conv2d(x, weight) + bias)); without batch_norm where bn_weight is None.

    x [N, C_in, H, W], weight [C_out, C_in, kH, kW], the others [C_out].
    """
    y = F.conv2d(x, weight, bias, stride, padding)
    y = _normalise(y, bn_weight, bn_bias, running_mean, running_var, training, momentum, eps)
    return activate(y, activation, negative_slope)
