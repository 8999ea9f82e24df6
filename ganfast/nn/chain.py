"""A sequence of layers in which a convolution applies the batch normalisation and activation of the one before it."""

import copy
import functools

import torch
from torch import nn

from ganfast import functional
from ganfast.nn.conv import ConvAct2d, ConvTransposeBNReLU2d
from ganfast.ops import _tuning
from ganfast.ops.batch_norm_act import update_running_statistics_
from ganfast.ops.conv_link import conv_link

_NOTHING = (None, None, None, 0.0)  # scale, shift, activation, slope of what is still to be applied to x


class FusedSequential(nn.Sequential):
    """``torch.nn.Sequential`` whose neighbouring convolution layers can run as one chain; equal in all it computes.

    In a chain a layer that normalises by the batch's statistics leaves its output as the convolution wrote it; the next
    layer's convolution applies scale, shift and activation while it reads, so that each activation is read and written
    once. ``chain`` is None (where two layers in training were measured to be faster so, which needs a kernel that
    applies them: on a CPU and under torch.compile never), True or False. A layer with hooks runs on its own.
    """

    chain: bool | None = None

    def forward(self, x):
        layers = list(self)
        before = _NOTHING
        for layer, following in zip(layers, [*layers[1:], None]):
            if self._links(layer, following, x):
                x, before = _link(layer, x, before)
            elif before is _NOTHING:
                x = layer(x)
            else:
                x, before = _end(layer, x, before), _NOTHING
        return x

    def _links(self, layer, following, x) -> bool:
        """Whether `layer` leaves its normalisation to `following`."""
        if self.chain is False or not (_fused(layer) and _fused(following) and layer.uses_batch):
            return False
        return self.chain or _chain_is_faster(layer, following, x)


def _fused(layer) -> bool:
    return type(layer) in (ConvAct2d, ConvTransposeBNReLU2d) and not (
        layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    )


def _chain_is_faster(layer, following, x) -> bool:
    """Measured once per shape: forward and backward of the two layers, as a chain and one after the other."""
    if torch.compiler.is_compiling() or not conv_link.has_fast_backend(x.device):
        return False
    device = x.device.type
    lowered = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None
    key = _tuning.key_of("chain", (x, _geometry(layer), _geometry(following), lowered))
    ways = {name: functools.partial(_try, layer, following, x, name == "chain") for name in ("layers", "chain")}
    return _tuning.choose(key, ways, x.device) == "chain"


def _geometry(layer) -> tuple:
    conv = layer.conv
    sizes = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.output_padding
    return type(layer).__name__, *sizes, layer.bn is not None, layer.activation


def _try(layer, following, x, chain):
    """Both layers' outputs and gradients, from copies: running statistics and parametrizations stay as they are."""
    pair = FusedSequential(copy.deepcopy(layer), copy.deepcopy(following)).train()
    pair.chain = chain
    with torch.enable_grad():
        out = pair(x.detach().requires_grad_())
        out.backward(torch.ones_like(out))


def _convolve(layer, weight, x, before, activation, slope, statistics):
    scale, shift, *in_activation = before
    conv = layer.conv
    geometry = conv.transposed, conv.stride, conv.padding, conv.output_padding
    return conv_link(x, scale, shift, weight, conv.bias, *geometry, *in_activation, activation, slope, statistics)


def _link(layer, x, before):
    """The layer's convolution alone, and what the next layer is to apply to it."""
    weight = layer.conv.weight
    y, mean, var = _convolve(layer, weight, x, before, None, 0.0, True)
    count = y.numel() // y.shape[1]
    if count == 1:
        raise ValueError(f"x: got one value per channel in training, {tuple(y.shape)}, needs more to normalise by")
    gain, offset, running_mean, running_var, _, momentum, eps = layer.batch_norm(weight)
    if running_mean is not None and count:
        update_running_statistics_(running_mean, running_var, mean.detach(), var.detach(), momentum, count)
    scale = gain * torch.rsqrt(var + eps)
    shift = -mean * scale if offset is None else offset - mean * scale
    return y, (scale.to(mean.dtype), shift.to(mean.dtype), layer.activation, layer.negative_slope)


def _end(layer, x, before):
    """The layer's output; its convolution applies what the one before has left."""
    weight = layer.conv.weight
    if layer.bn is None:
        return _convolve(layer, weight, x, before, layer.activation, layer.negative_slope, False)[0]
    y = _convolve(layer, weight, x, before, None, 0.0, False)[0]
    gain, offset, mean, var, *rest = layer.batch_norm(weight)
    return functional.batch_norm_act(y, mean, var, gain, offset, *rest, layer.activation, layer.negative_slope)
