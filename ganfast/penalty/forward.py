"""A critic's forward on a tape: a plain nn.Sequential layer by layer, anything else as its code runs (recorder.py).

The walk over a Sequential costs less Python, torch.compile takes it, and an activation overwrites what it alone reads.
"""

import torch
from torch import nn

from ganfast import nn as gnn
from ganfast.nn import FusedSequential
from ganfast.nn.fused_group import ACTIVATIONS
from ganfast.penalty import layers, linear, smooth
from ganfast.penalty.norms import GroupNorm, InstanceNorm, LayerNorm
from ganfast.penalty.recorder import record
from ganfast.penalty.rules import REGISTERED, NotMergedError
from ganfast.penalty.sweeps import Tape

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")


def _conv(module):
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        return None
    geometry = module.stride, module.padding, module.dilation, module.transposed, module.output_padding, module.groups
    return layers.Conv(module.weight, module.bias, *geometry)


def _dropout(module):
    return (
        layers.Masked(lambda ones: module(ones), type(module) is not nn.Dropout) if module.training else linear.Keep()
    )


def _max_pool(module):
    if module.ceil_mode or module.return_indices:
        return None
    function = getattr(nn.functional, f"max_pool{type(module).__name__[-2]}d")
    sizes = module.kernel_size, module.stride, module.padding, module.dilation
    return layers.Pick(lambda x: function(x, *sizes, return_indices=True), int(type(module).__name__[-2]))


def _instance_norm(module):
    return None if module.track_running_stats else InstanceNorm(module.weight, module.bias, module.eps)


def _instance_norm_act(module):
    act = [] if module.activation is None else [smooth.activation(module.activation, module.negative_slope)]
    return [_instance_norm(module), *act]


def _fused(module):
    """ganfast.nn's layers through their parts."""
    act = [] if module.activation is None else [smooth.activation(module.activation, module.negative_slope)]
    return [_conv(module.conv) if module.bn is None else None, *act]


def _activation(name):
    def rule(module):
        slope = getattr(module, "negative_slope", 0.0)
        return smooth.activation(name, slope) if slope >= 0 else None

    return rule


LAYERS = {
    **dict.fromkeys(
        (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _conv
    ),
    nn.Linear: lambda module: layers.Linear(module.weight, module.bias),
    nn.Identity: lambda module: linear.Keep(),
    **{layer: _activation(name) for layer, name in ACTIVATIONS.items()},
    nn.Softplus: lambda module: smooth.Softplus(module.beta, module.threshold),
    nn.GELU: lambda module: smooth.gelu(module.approximate),
    nn.ELU: lambda module: smooth.ELU(module.alpha),
    nn.Flatten: linear.Reshape,
    nn.Unflatten: linear.Reshape,
    nn.AvgPool2d: lambda module: layers.AvgPool2d(
        module.kernel_size, module.stride, module.padding, module.ceil_mode, module.count_include_pad,
        module.divisor_override,
    ),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _max_pool),
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), _dropout),
    nn.LayerNorm: lambda module: None
    if module.weight is None and module.bias is not None
    else LayerNorm(module.weight, module.bias, module.eps, module.normalized_shape),
    nn.GroupNorm: lambda module: GroupNorm(module.weight, module.bias, module.eps, module.num_groups),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _instance_norm),
    gnn.InstanceNormAct2d: _instance_norm_act,
    gnn.ConvAct2d: _fused,
    gnn.ConvTransposeBNReLU2d: _fused,
}  # fmt: skip


def forward(critic, x, inputs=(), start=0, channels_last=False):
    """(tape, scores) of plain x; raises NoRuleError or NotMergedError."""
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    found = _walk(critic, x, start) if not inputs and walks(critic) else None
    return record(critic, x, inputs, start) if found is None else found


def walks(critic) -> bool:
    """Whether the critic is a plain Sequential of layers with rules, without hooks."""
    if not isinstance(critic, nn.Module) or any(getattr(m, "mixes_samples", False) for m in critic.modules()):
        return False
    return all(_plain_type(leaf) in LAYERS or type(leaf) in REGISTERED for leaf in _leaves(critic)) and all(
        map(_is_plain, critic.modules())
    )


def _walk(critic: nn.Module, x, start=0):
    """(tape, scores) of such a critic, or None where a layer has no rule as it is now."""
    with torch.enable_grad():  # for the graph of parametrizations
        rules = [rule for leaf in _leaves(critic) for rule in _rules(leaf)]
    if None in rules:
        return None
    tape, number, fresh = Tape(x, start), 0, False
    for rule in rules:
        x, number = tape.call(rule, [number], [x], fresh and isinstance(rule, layers.LeakyReLU))
        fresh = rule.fresh
    if start and x.shape[:1] != tape.batch:
        raise NotMergedError("it returns more scores than samples")
    tape.close(number)
    return tape, x


def _rules(leaf) -> list:
    made = (REGISTERED.get(type(leaf)) or LAYERS[_plain_type(leaf)])(leaf)
    return made if isinstance(made, list) else [made]


def _leaves(module):
    """The modules that a walk meets."""
    if type(module) in (nn.Sequential, FusedSequential):
        return [leaf for child in module for leaf in _leaves(child)]
    return [module]


def _plain_type(module) -> type:
    """The class of a module, seen through its parametrizations."""
    return type(module).__mro__[1] if nn.utils.parametrize.is_parametrized(module) else type(module)


def _is_plain(module) -> bool:
    """Whether a call of the module is its class's forward and no more."""
    own = vars(module)
    return "forward" not in own and not any(own[hooks] for hooks in _HOOKS)
