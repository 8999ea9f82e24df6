"""The rules that calls of torch's layers take: weights, norms, activations, pooling, resizing, padding."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ganfast import activations, functional
from ganfast.nn import norms
from ganfast.penalty import layers, linear, products, smooth
from ganfast.penalty.batch_norm import BatchNorm
from ganfast.penalty.functions import composite, rule
from ganfast.penalty.norms import GroupNorm, InstanceNorm, LayerNorm
from ganfast.penalty.rules import LinearMap

# --- weights ----------------------------------------------------------------------------------------------------------


def _tuple(value, dims):
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims


def _conv(r, dims, transposed, input, weight, bias, stride, padding, output_padding, groups, dilation):
    if padding == "valid":
        padding = 0
    if isinstance(padding, str) or input.dim() != dims + 2 or r.live(weight) or r.live(bias):
        return None
    geometry = (_tuple(v, dims) for v in (stride, padding, dilation))
    made = layers.Conv(weight, bias, *geometry, transposed, _tuple(output_padding, dims), groups)
    return made, [input]


for _dims, _plain, _transposed in (
    (1, torch.conv1d, torch.conv_transpose1d), (2, torch.conv2d, torch.conv_transpose2d),
    (3, torch.conv3d, torch.conv_transpose3d),
):  # fmt: skip

    @rule(_plain)
    def _(r, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, dims=_dims):
        return _conv(r, dims, False, input, weight, bias, stride, padding, 0, groups, dilation)

    @rule(_transposed)
    def _(r, input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *, dims=_dims):
        return _conv(r, dims, True, input, weight, bias, stride, padding, output_padding, groups, dilation)


@rule(F.linear)
def _(r, input, weight, bias=None):
    if input.dim() < 2 or weight.dim() != 2 or r.live(weight) or r.live(bias):
        return None
    return layers.Linear(weight, bias), [input]


@rule("matmul", "bmm", "mm")
def _(r, a, b):
    if not r.live(b) and b.dim() == 2 and a.dim() >= 2:
        return layers.Linear(b.t()), [a]
    if min(a.dim(), b.dim()) < 2 or (a.dim() != b.dim() and r.tape.start):
        return None
    return products.Matmul(), [a, b]


@rule(F.batch_norm)
def _(r, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if training and input.numel() == input.shape[1]:
        return None  # torch says what is wrong
    return BatchNorm(running_mean, running_var, weight, bias, training, momentum, eps), [input]


@rule(F.layer_norm)
def _(r, input, normalized_shape, weight=None, bias=None, eps=1e-5):
    shape = tuple(normalized_shape)
    if (weight is None and bias is not None) or input.shape[-len(shape) :] != shape or input.dim() <= len(shape):
        return None
    return LayerNorm(weight, bias, eps, shape), [input]


@rule(F.group_norm)
def _(r, input, num_groups, weight=None, bias=None, eps=1e-5):
    if (weight is None) != (bias is None) or input.shape[1] % num_groups:
        return None
    return GroupNorm(weight, bias, eps, num_groups), [input]


@rule(F.instance_norm)
def _(
    r, input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5
):
    if (weight is None) != (bias is None) or math.prod(input.shape[2:]) == 1:
        return None
    if not use_input_stats:
        return BatchNorm(running_mean, running_var, weight, bias, False, momentum, eps), [input]
    return None if running_mean is not None else (InstanceNorm(weight, bias, eps), [input])


@composite(norms.norm_act)
def _(x, *rest):
    return norms.norm_act_by_torch(x, *rest)


@composite(functional.norm_act)
def _(y, groups, weight=None, bias=None, moments=None, eps=1e-5, activation=None, negative_slope=0.2):
    a = norms.norm_act_by_torch(y, groups, weight, bias, moments, eps, activation, negative_slope)
    return a, norms.moments_by_torch(y, groups) if moments is None else moments


# --- activations ------------------------------------------------------------------------------------------------------


def _activation(name, row):
    """Torch's function and method of an activation in the table."""

    @rule(row.function)
    def _(r, input, *args, **kwargs):
        options = row.options | dict(zip(row.options, args)) | kwargs
        return smooth.activation(name, options.get("negative_slope", 0.0)), [input]


for _name, _row in activations.ROWS.items():
    if _row.function:
        _activation(_name, _row)


def _no_options(name, make):
    @rule(name)
    def _(r, input):
        return make(), [input]


for _name, _make in {
    "exp": smooth.exp, "log": smooth.log, "square": smooth.square,
    "sqrt": lambda: smooth.power(0.5), "rsqrt": lambda: smooth.power(-0.5), "sin": smooth.sin, "cos": smooth.cos,
    "atan": smooth.atan, "arctan": smooth.atan, "logsigmoid": smooth.log_sigmoid, "softsign": smooth.softsign,
    "reciprocal": products.Reciprocal,
    "abs": lambda: layers.Sloped(torch.abs, torch.sign), "neg": lambda: linear.Times(-1),
}.items():  # fmt: skip
    _no_options(_name, _make)


@rule(F.mish)
def _(r, input, inplace=False):
    return smooth.Mish(), [input]


@rule(F.hardswish)
def _(r, input, inplace=False):
    return smooth.Hardswish(), [input]


@rule(F.softplus)
def _(r, input, beta=1.0, threshold=20.0):
    return smooth.Softplus(beta, threshold), [input]


@rule(F.gelu)
def _(r, input, approximate="none"):
    return smooth.gelu(approximate), [input]


@rule(F.elu)
def _(r, input, alpha=1.0, inplace=False):
    return smooth.ELU(alpha), [input]


@rule("selu")
def _(r, input, inplace=False):
    return smooth.ELU(1.6732632423543772848170429916717, 1.0507009873554804934193349852946), [input]


def _inside(low, high):
    return lambda x: ((x > low) & (x < high)).to(x.dtype)


@rule(F.hardtanh)
def _(r, input, min_val=-1.0, max_val=1.0, inplace=False):
    return layers.Sloped(lambda x: x.clamp(min_val, max_val), _inside(min_val, max_val)), [input]


@rule(F.relu6)
def _(r, input, inplace=False):
    return layers.Sloped(lambda x: x.clamp(0.0, 6.0), _inside(0.0, 6.0)), [input]


@rule(F.hardsigmoid)
def _(r, input, inplace=False):
    return layers.Sloped(F.hardsigmoid, lambda x: _inside(-3.0, 3.0)(x) / 6), [input]


@rule(F.threshold)
def _(r, input, threshold, value, inplace=False):
    return layers.Sloped(lambda x: F.threshold(x, threshold, value), lambda x: (x > threshold).to(x.dtype)), [input]


@rule("clamp", "clip")
def _(r, input, min=None, max=None):
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return None
    low, high = -math.inf if min is None else min, math.inf if max is None else max
    return layers.Sloped(lambda x: x.clamp(min, max), lambda x: ((x >= low) & (x <= high)).to(x.dtype)), [input]


@rule(F.softmax)
def _(r, input, dim=None, _stacklevel=3, dtype=None):
    return _along(products.Softmax, input, dim, dtype)


@rule(torch.softmax, Tensor.softmax)
def _(r, input, dim, dtype=None):
    return _along(products.Softmax, input, dim, dtype)


@rule(F.log_softmax)
def _(r, input, dim=None, _stacklevel=3, dtype=None):
    return _along(products.LogSoftmax, input, dim, dtype)


def _along(made, input, dim, dtype):
    """Along a dimension that is not the first."""
    if dim is None or dtype is not None or dim % input.dim() == 0:
        return None
    return made(dim % input.dim()), [input]


for _function in (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d):

    @rule(_function)
    def _(r, input, p=0.5, training=True, inplace=False, *, function=_function):
        return _dropout(function, input, p, training)


def _dropout(function, input, p, training):
    if not training:
        return linear.Keep(), [input]
    dims = {F.dropout1d: 1, F.dropout2d: 2, F.dropout3d: 3}.get(function)
    if dims is not None and input.dim() != dims + 2:
        return None
    return layers.Masked(lambda ones: function(ones, p, True), dims is not None), [input]


# --- pooling, resizing, padding ---------------------------------------------------------------------------------------


@rule(F.avg_pool2d)
def _(r, input, *args, **kwargs):
    return (layers.AvgPool2d(*args, **kwargs), [input]) if input.dim() == 4 else None


def _dispatched(name) -> list:
    """The functions behind a pooling of torch.nn.functional that may return places, too."""
    inner = getattr(F, f"_{name}", None)  # what its call without places is known as to torch's modes
    return [getattr(F, name), getattr(torch, name, None), *([inner] if inner else [])]


@rule(*(function for dims in (1, 2, 3) for function in _dispatched(f"max_pool{dims}d")))
def _(r, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    dims = input.dim() - 2
    if ceil_mode or return_indices or dims < 1:
        return None
    pool = getattr(F, f"max_pool{dims}d")
    pooled = lambda x: pool(x, kernel_size, stride, padding, dilation, return_indices=True)  # noqa: E731
    return layers.Pick(pooled, dims), [input]


@rule(*(function for dims in (1, 2, 3) for function in _dispatched(f"adaptive_max_pool{dims}d")))
def _(r, input, output_size, return_indices=False):
    dims = input.dim() - 2
    if return_indices or dims < 1:
        return None
    pool = getattr(F, f"adaptive_max_pool{dims}d")
    return layers.Pick(lambda x: pool(x, output_size, return_indices=True), dims), [input]


def _whole(function):
    """A linear map of its first argument, row by row."""

    @rule(function)
    def _(r, input, *args, **kwargs):
        return (LinearMap(lambda x: function(x, *args, **kwargs)), [input]) if input.dim() > 2 else None


for _function in (
    F.avg_pool1d, F.avg_pool3d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.interpolate,
    F.upsample, F.upsample_nearest, F.upsample_bilinear, F.pixel_shuffle, F.pixel_unshuffle, F.unfold, F.fold,
    F.channel_shuffle,
):  # fmt: skip
    _whole(_function)


@rule(F.grid_sample)
def _(r, input, grid, *args, **kwargs):
    if r.live(grid) or grid.requires_grad or r.tape.start:
        return None
    return LinearMap(lambda x: F.grid_sample(x, grid, *args, **kwargs)), [input]


@rule(F.pad)
def _(r, input, pad, mode="constant", value=None):
    if mode == "constant":
        return linear.Pad(pad, value, not any(pad[2 * input.dim() - 2 :])), [input]
    return LinearMap(lambda x: F.pad(x, pad, mode, value)), [input]
