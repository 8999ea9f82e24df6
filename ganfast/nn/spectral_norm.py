"""Spectral normalisation of a whole discriminator."""

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrizations, parametrize


def spectral_norm(network: nn.Module) -> nn.Module:
    """Every Linear and convolution of the network has the weight W/σ(W) from now on; gives the network.

    σ(W), the largest singular value, comes by torch's own ``parametrizations.spectral_norm``: one power iteration at
    each call in training, so that a step in which D is called k times makes k of them (one, where a penalty's step is
    merged), each on the same W; u and v are buffers. Norms are left alone, and so is a weight that is parametrized
    already. A weight of zeros has no direction: such a layer gets torch's own initialisation first.
    Miyato et al. 2018, arXiv:1802.05957. Raises ValueError where there is no such layer.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Linear, _ConvNd))]
    if not layers:
        raise ValueError(f"network: {type(network).__name__} has no Linear and no convolution in it, needs one")
    for layer in layers:
        if parametrize.is_parametrized(layer, "weight"):
            continue
        if not layer.weight.any():
            layer.reset_parameters()
        parametrizations.spectral_norm(layer)
    return network
