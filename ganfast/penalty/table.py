"""The rules of torch's and ganfast's own layers, of functions and of methods of a tensor."""

import operator

import torch
import torch.nn.functional as F
from torch import nn

from ganfast import nn as gnn
from ganfast.penalty import layers as L
from ganfast.penalty.norms import GroupNorm, InstanceNorm, LayerNorm
from ganfast.penalty.rules import Constant, Differentiable, LinearMap, NoRuleError, Size, register

# --- layers -----------------------------------------------------------------------------------------------------------


def _conv(module):
    return L.Conv(module) if L.plain_conv(module) else Differentiable(module=module)


def _instance_norm(module, dims):
    if module.track_running_stats:
        return Differentiable(module=module)  # in training it adds to the running statistics
    return InstanceNorm(module, dims)


def _pool(module, dims):
    if module.ceil_mode or module.return_indices:
        return Differentiable(module=module)
    return L.MaxPool(
        lambda x: getattr(F, f"max_pool{dims}d")(
            x, module.kernel_size, module.stride, module.padding, module.dilation, return_indices=True
        ),
        dims,
    )


def _avg_pool(module):
    return L.AvgPool2d(
        module.kernel_size, module.stride, module.padding, module.ceil_mode, module.count_include_pad,
        module.divisor_override,
    )  # fmt: skip


def _pad(module):
    zero = isinstance(module, (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)) or getattr(module, "value", 0) == 0
    return LinearMap(module) if zero else Differentiable(module=module)


def _dropout(module):
    return L.Masked(lambda ones: module(ones))


def _activation(name, slope):
    if name is None:
        return []
    return [L.Tanh()] if name == "tanh" else [L.LeakyReLU(slope if name == "leaky_relu" else 0.0)]


def _fused(module):
    """ganfast.nn's layers through their parts."""
    norm = [] if module.bn is None else [Differentiable(module=module.bn)]
    return [_conv(module.conv), *norm, *_activation(module.activation, module.negative_slope)]


for _layer in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d):
    register(_layer, _conv)
register(nn.Linear, L.Linear)
register(nn.Identity, lambda module: L.Keep())
register(nn.ReLU, lambda module: L.LeakyReLU())
register(nn.LeakyReLU, lambda module: L.LeakyReLU(module.negative_slope))
register(nn.Tanh, L.Tanh)
register(nn.Sigmoid, L.Sigmoid)
register(nn.SiLU, L.SiLU)
register(nn.Softplus, lambda module: L.Softplus(module.beta, module.threshold))
register(nn.GELU, lambda module: L.GELU(module.approximate))
for _layer in (nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.PReLU, nn.Hardtanh, nn.ReLU6, nn.LogSigmoid, nn.Softsign):
    register(_layer)
for _layer in (nn.Bilinear, nn.Embedding, nn.Softmax, nn.RMSNorm, nn.LocalResponseNorm):
    register(_layer)
for _layer in (nn.Flatten, nn.Unflatten):
    register(_layer, lambda module: L.Reshape(module))
for _layer in (
    nn.AvgPool1d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.PixelShuffle, nn.PixelUnshuffle,
    nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d, nn.CircularPad1d,
    nn.CircularPad2d, nn.ChannelShuffle,
):  # fmt: skip
    register(_layer, LinearMap)
for _layer in (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d):
    register(_layer, _pad)
register(nn.AvgPool2d, _avg_pool)
register(nn.MaxPool1d, lambda module: _pool(module, 1))
register(nn.MaxPool2d, lambda module: _pool(module, 2))
register(nn.MaxPool3d, lambda module: _pool(module, 3))
for _layer in (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d):
    register(_layer, _dropout)
register(nn.LayerNorm, LayerNorm)
register(nn.GroupNorm, GroupNorm)
register(nn.InstanceNorm1d, lambda module: _instance_norm(module, 1))
register(nn.InstanceNorm2d, lambda module: _instance_norm(module, 2))
register(nn.InstanceNorm3d, lambda module: _instance_norm(module, 3))
for _layer in (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, gnn.SyncBatchNorm, gnn.MinibatchDiscrimination, gnn.MinibatchStddev
):  # fmt: skip
    register(_layer)
register(gnn.ConvAct2d, _fused)
register(gnn.ConvTransposeBNReLU2d, _fused)

# --- functions and methods --------------------------------------------------------------------------------------------

# each takes (function of the input tensors, arguments by position, by name, number of times that an input tensor stands
# in them) and gives a rule; an argument that is an input is None

RESHAPES = {
    torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.unflatten, "flatten", "reshape", "view",
    "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as",
}  # fmt: skip
VIEWS = RESHAPES | {
    nn.Flatten, nn.Unflatten, nn.Identity, torch.permute, "permute", torch.transpose, "transpose", "expand",
    "expand_as", "contiguous", operator.getitem, torch.narrow, "narrow",
}  # fmt: skip
LINEAR = {
    F.avg_pool1d, F.avg_pool3d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
    F.interpolate, F.upsample, F.pixel_shuffle, F.pixel_unshuffle, torch.neg, operator.neg, "neg", "contiguous",
}  # fmt: skip
SMOOTH = {  # by the arguments after the first
    torch.tanh: L.Tanh, F.tanh: L.Tanh, "tanh": L.Tanh, torch.sigmoid: L.Sigmoid, F.sigmoid: L.Sigmoid,
    "sigmoid": L.Sigmoid, F.silu: lambda inplace=False: L.SiLU(), F.softplus: L.Softplus, F.gelu: L.GELU,
}  # fmt: skip
DIFFERENTIABLE = {
    F.selu, F.celu, F.mish, F.prelu, F.hardtanh, F.relu6, F.logsigmoid, F.softsign,
    torch.add, operator.add, "add", torch.sub, operator.sub, "sub", torch.mul, operator.mul, "mul", torch.div,
    operator.truediv, "div", torch.matmul, operator.matmul, "matmul", torch.bmm, "bmm", torch.mm, "mm", torch.einsum,
    F.linear, F.bilinear, F.embedding, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose2d, F.pad, F.max_pool2d,
    torch.exp, "exp", torch.log, "log", torch.sqrt, "sqrt", torch.rsqrt, "rsqrt", torch.square, "square", torch.pow,
    operator.pow, "pow", torch.abs, "abs", torch.sin, "sin", torch.cos, "cos", torch.clamp, "clamp", F.elu,
    F.normalize, torch.norm, "norm", F.softmax, torch.softmax, "softmax", F.layer_norm, F.group_norm, F.instance_norm,
    torch.sum, "sum", torch.mean, "mean", torch.cat, torch.concat, torch.stack, torch.where, operator.getitem,
    torch.narrow, "narrow", torch.permute, "permute", torch.transpose, "transpose", "expand", "expand_as", "repeat",
    "clone", "to", "float", "double", "half", "type_as", F.one_hot, torch.maximum, torch.minimum, operator.gt,
    operator.lt, operator.ge, operator.le,
}  # fmt: skip
CONSTANTS = {"new_zeros", "new_ones", "detach", torch.zeros_like, torch.ones_like}  # and x.dtype, x.device
SIZES = {"size", "dim", "numel"}  # and getattr: x.shape; what is made of sizes alone is one, too


def _dimensions(args, kwargs):
    found = kwargs.get("dim", kwargs.get("dims", args[1:]))
    found = found if isinstance(found, (tuple, list)) else [found]
    return [x for d in found for x in (d if isinstance(d, (tuple, list)) else [d])]


def _within_samples(dims):
    """Whether the batch's dimension is surely not among them."""
    return bool(dims) and all(isinstance(d, int) and d > 0 for d in dims)


def function_rule(target, function, args, kwargs, inputs, count):
    """The rule of a call of ``target``; ``function`` is the call with all but its ``inputs`` filled in.

    These stand in ``count`` places: x·x has one of them, twice.
    """
    if target in RESHAPES:
        return L.Reshape(function)
    if target in LINEAR:
        return LinearMap(function)
    if target in SMOOTH and args[:1] == (None,) and count == 1:
        return SMOOTH[target](*args[1:], **kwargs)
    if target in (F.relu, torch.relu, "relu", F.relu_):
        return L.LeakyReLU()
    if target is F.avg_pool2d:
        return L.AvgPool2d(*args[1:], **kwargs) if count == 1 else LinearMap(function)
    if target is F.max_pool2d and count == 1 and len(args) < 6 and not kwargs.get("ceil_mode"):
        return L.MaxPool(lambda x: F.max_pool2d(x, *args[1:], **{**kwargs, "return_indices": True}), 2)
    if target is F.leaky_relu and count == 1:
        slope = kwargs.get("negative_slope", args[1] if len(args) > 1 else 0.01)
        return L.LeakyReLU(slope)
    if target in (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d) and count == 1:
        return L.Masked(function)
    if target in (torch.add, operator.add, "add") and not kwargs:
        return L.Keep(function) if count == 1 else L.Add() if inputs == 2 else LinearMap(function)
    if target in (operator.sub, torch.sub, "sub") and count == 1 and args[0] is None and not kwargs:
        return L.Keep(function)
    times, over = (operator.mul, torch.mul, "mul"), (operator.truediv, torch.div, "div")
    if count == 1 and not kwargs and (target in times or (target in over and args[0] is None)):
        return LinearMap(function)
    if target in (torch.cat, torch.concat):
        dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        return LinearMap(function) if _within_samples([dim]) else Differentiable(function)
    if target in (torch.mean, torch.sum, "mean", "sum"):
        dims = _dimensions(args, kwargs)
        if _within_samples(dims):
            return LinearMap(function)
    if target in (torch.permute, "permute") and _dimensions(args, kwargs)[0] == 0:
        return LinearMap(function)
    if target in (torch.transpose, "transpose") and _within_samples([*args[1:], *kwargs.values()]):
        return LinearMap(function)
    if target in SIZES or (target is getattr and args[1] in ("shape", "ndim")):
        return Size(function)
    if target in CONSTANTS or (target is getattr and args[1] in ("dtype", "device")):
        return Constant(function)
    if target in DIFFERENTIABLE:
        return Differentiable(function, in_place=bool(kwargs.get("inplace")))
    raise NoRuleError(target if isinstance(target, str) else f"{getattr(target, '__name__', target)}()")
