"""The activations of the layers, by name."""

import torch
import torch.nn.functional as F


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
