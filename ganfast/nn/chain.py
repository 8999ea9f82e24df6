"""A sequence of layers in which a convolution applies the batch normalisation and activation of the one before it."""

import functools

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from ganfast import functional
from ganfast.nn.conv import FusedConv
from ganfast.nn.fused_group import (
    CONVOLUTIONS,
    Trial,
    extras,
    group_at,
    group_of,
    known_to_prefer_torch,
    obstacle,
    operators_do,
    remember,
    takes,
)
from ganfast.nn.norm_group import norm_at, run_layers
from ganfast.ops import _registry, _tuning
from ganfast.ops._conv_bn_act_triton import may_win
from ganfast.ops.conv_bn_act import conv_act, conv_bn_act

_NOTHING = (None, None, None, 0.0, None, 0.0)  # moments, gain, offset, eps, activation, slope: still to be applied to x


class FusedSequential(nn.Sequential):
    """``torch.nn.Sequential`` that runs each convolution with its BatchNorm2d and activation as one operator.

    So does an InstanceNorm2d with the activation behind it, on a CPU too. Its layers are ganfast's (``ConvAct2d,
    ConvTransposeBNReLU2d``), torch's own in a row (``ConvTranspose2d, BatchNorm2d, ReLU``), or any others, which run as
    they are. Keys, parameters and indexing are those of ``torch.nn.Sequential``. Layers are matched at each call: they
    may be appended, replaced or given hooks at any time.

    Neighbouring convolutions can run as a chain: one that normalises by the batch's statistics leaves its output as it
    wrote it, and the next applies scale, shift and activation while it reads, so that each activation is read and
    written once. ``chain`` is None (where the two in training were measured to be faster so, which needs a kernel that
    applies them: on a CPU and under torch.compile never), True or False.
    """

    chain: bool | None = None

    def forward(self, input):
        if not self.chain and known_to_prefer_torch(self, input):
            if input.requires_grad and input.is_leaf and input.is_cpu:
                return _run_for_a_penalty(list(self), input)
            if nn.InstanceNorm2d in map(type, self):
                return run_layers(list(self), input)
            for layer in self:
                input = layer(input)
            return input
        output, by_torch = _run(_steps(list(self)), input, self.chain)
        if by_torch and isinstance(input, Tensor):
            remember(self, input)
        return output


def _run_for_a_penalty(layers, x):
    """Layer by layer, a LeakyReLU behind a convolution as x·act'(x) with act'(x) held constant: the same numbers.

    So its second derivative is absent. torch's is a tensor of zeros, with which double backward (likely where the input
    is a leaf that requires a gradient) would differentiate each convolution below once more. In other passes this costs
    up to 5 %.
    """
    alone = not torch.compiler.is_compiling() and operators_do() and not _has_any_global_hook()

    def run(layer, x, before):
        behind = type(before) in CONVOLUTIONS and type(layer) is nn.LeakyReLU
        if alone and behind and not extras(before) and not extras(layer) and x.requires_grad:
            return torch.ops.aten.leaky_relu_backward.default(x, x.detach(), layer.negative_slope, False)
        return layer(x)

    return run_layers(layers, x, run)


def _steps(layers) -> list:
    """(fused group or None, its layers), in their order."""
    steps, i = [], 0
    while i < len(layers):
        layer, group, size = layers[i], None, 1
        if (
            isinstance(layer, FusedConv)
            and type(layer).forward is FusedConv.forward
            and layer.fuses
            and not extras(layer)
        ):
            group = layer.group()
        else:
            bn, act, found = group_at(layers, i)
            if found > 1 and not obstacle(layer, bn, act):
                group, size = group_of(layer, bn, act), found
            else:
                size = norm_at(layers, i)[2] or 1
        steps.append((group, layers[i : i + size]))
        i += size
    return steps


def _run(steps, x, chain) -> tuple:
    """The output, and whether every group ran torch's own layers because they are faster."""
    before, by_torch = _NOTHING, True
    for (group, layers), (following, _) in zip(steps, [*steps[1:], (None, ())]):
        if group is None or not takes(x):
            x = run_layers(layers, x)
            continue
        if before is _NOTHING and not chain and group.prefers_torch(x):
            x = group.by_torch(x)
            continue
        by_torch = False
        if _links(group, following, x, chain):
            x, before = _link(group, x, before)
        elif before is _NOTHING:
            x = group(x)
        else:
            x, before = _end(group, x, before), _NOTHING
    return x, by_torch


def _links(group, following, x, chain) -> bool:
    """Whether `group` leaves its normalisation to `following`."""
    if chain is False or following is None or not group.uses_batch:
        return False
    return chain or _chain_is_faster(group, following, x)


def _chain_is_faster(group, following, x) -> bool:
    """Measured once per shape: forward and backward of the two, as a chain and one after the other."""
    if torch.compiler.is_compiling() or conv_act.is_plain(x.device) or not may_win(x):
        return False
    trial = Trial((group, following), x)

    def way(chain):
        return functools.partial(trial, lambda groups, x: _run([(each, ()) for each in groups], x, chain)[0])

    ways = {"layers": way(False), "chain": way(True)}
    return _tuning.choose(trial.key("chain"), ways, x.device, by_host=_registry.is_eager(x.device)) == "chain"


def _link(group, x, before):
    """What the convolution leaves, and what the next one is to apply to it."""
    _, z, moments, gain, offset, eps = _layer(group, x, before, False)
    return z, (moments, gain, offset, eps, group.activation, group.slope)


def _end(group, x, before):
    """The output; its convolution applies what the one before has left."""
    conv, bn = group.conv, group.bn
    if group.uses_batch:
        return _layer(group, x, before, True)[0]
    behind = (group.activation, group.slope)
    y = functional.conv_act(x, conv.weight, conv.bias, group.geometry, *(behind if bn is None else (None, 0.0)), before)
    if bn is None:
        return y
    return functional.batch_norm_act(
        y, bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.0, bn.eps, *behind
    )


def _layer(group, x, before, apply):
    """(a, z, moments) of the convolution and its batch normalisation; then the latter's weight, bias and eps."""
    conv, weight = group.conv, group.conv.weight
    gain, offset, *running, _, momentum, eps = group.batch_norm
    moments, in_gain, in_offset, *rest = before
    behind = (group.activation, group.slope) if apply else (None, 0.0)
    out = conv_bn_act(
        x, moments, in_gain, in_offset, weight, conv.bias, gain, offset, *running, *group.geometry, *rest, momentum,
        eps, *behind, apply,
    )  # fmt: skip
    return *out, gain, offset, eps
