"""A fused group: a convolution, the BatchNorm2d and the activation after it, called as one operator."""

import copy
import functools
import weakref
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

from ganfast import activations, functional, reference
from ganfast.ops import _registry, _tuning
from ganfast.ops._private import are_functorch_transforms_active, get_tracing_state
from ganfast.ops.conv_bn_act import conv_act, outputs

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
ACTIVATIONS = {getattr(nn, row.layer): name for name, row in activations.ROWS.items() if row.layer}
LAYERS = ", ".join(layer.__name__ for layer in ACTIVATIONS)


class FusedGroup(NamedTuple):
    """torch's own modules, for their parameters and options; ``group(x)`` computes act(bn(conv(x))) as one operator.

    ``bn`` may be None. ``bn.eval()``, ``affine=False``, ``momentum=None`` and ``track_running_stats=False`` mean what
    they mean to ``torch.nn.BatchNorm2d``. A parametrized weight is computed once a call.
    """

    conv: nn.Conv2d | nn.ConvTranspose2d
    bn: nn.BatchNorm2d | None
    activation: str | None
    slope: float

    @property
    def geometry(self) -> tuple:
        return self.conv.transposed, self.conv.stride, self.conv.padding, self.conv.output_padding

    @property
    def uses_batch(self) -> bool:
        """Whether it normalises with the statistics of the batch."""
        return self.bn is not None and (self.bn.training or self.bn.running_mean is None)

    @property
    def batch_norm(self) -> tuple:
        """What ``functional.layer`` takes of ``bn``."""
        bn = self.bn
        if bn is None:
            return None, None, None, None, None, False, 0.0, 0.0
        gain = self.conv.weight.new_ones(bn.num_features) if bn.weight is None else bn.weight
        running = bn.running_mean, bn.running_var, bn.num_batches_tracked
        if self.uses_batch and not (bn.training and bn.track_running_stats):
            running = None, None, None
        return gain, bn.bias, *running, self.uses_batch, bn.momentum, bn.eps

    def __call__(self, x):
        if not operators_do() or self.prefers_torch(x):
            return self.by_torch(x)
        return self.fused(x)

    def by_torch(self, x):
        """Runs torch's own layers, one after the other."""
        x = self.conv.forward(x)
        if self.bn is not None:
            x = self.bn.forward(x)
        return reference.activate(x, self.activation, self.slope, inplace=True)

    def fused(self, x):
        """Runs one operator."""
        conv, act = self.conv, (self.activation, self.slope)
        return functional.layer(x, conv.weight, conv.bias, self.batch_norm, self.geometry, *act)

    def prefers_torch(self, x) -> bool:
        """Whether torch's own layers are as fast or faster.

        They are on a CPU; and in an eager loop on a GPU, where the host's time counts, for small tensors. For larger
        ones both are timed once for each shape, forward and backward.
        """
        if conv_act.is_plain(x.device):
            return True
        if not _host_counts(x):
            return False
        if outputs(x, self.conv.weight, *self.geometry) <= functional.SMALL:
            return True
        trial = Trial((self,), x)
        ways = {
            "torch": functools.partial(trial, lambda groups, x: groups[0].by_torch(x)),
            "fused": functools.partial(trial, lambda groups, x: groups[0].fused(x)),
        }
        return _tuning.choose(trial.key("layer"), ways, x.device, by_host=True) == "torch"


class Trial:
    """Times groups on x, forward and backward: on copies, so that running statistics and gradients do not change.

    ``trial(run)`` computes run(groups, x) and its gradients.
    """

    def __init__(self, groups, x):
        self.groups, self.x, self.copies = groups, x, None

    def key(self, name) -> tuple:
        """The key under which the measured choice is cached: everything that the time depends on."""
        device = self.x.device.type
        lowered = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None
        return _tuning.key_of(name, (self.x, *map(_geometry, self.groups), lowered, self._differentiates(self.x)))

    def _differentiates(self, x) -> tuple:
        """Whether gradients are computed: with respect to x, to parameters."""
        if not torch.is_grad_enabled():
            return False, False
        return x.requires_grad, any(p.requires_grad for group in self.groups for p in group.conv.parameters())

    def __call__(self, run):
        if self.copies is None:
            self.copies = copy.deepcopy(self.groups)
        of_x, of_parameters = self._differentiates(self.x)
        x = self.x.detach().requires_grad_(of_x)
        out = run(self.copies, x)
        modules = [module for group in self.copies for module in (group.conv, group.bn) if module is not None]
        wanted = [p for module in modules for p in module.parameters() if p.requires_grad] if of_parameters else []
        if wanted := [*wanted, *([x] if of_x else [])]:
            torch.autograd.grad(out, wanted, torch.ones_like(out))


def _geometry(group) -> tuple:
    conv, bn = group.conv, group.bn
    sizes = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.output_padding
    return conv.transposed, *sizes, conv.bias is None, bn is not None and group.uses_batch, bn is None, group.activation


_BY_TORCH = weakref.WeakKeyDictionary()  # module → shapes of inputs for which torch's own layers are faster


def known_to_prefer_torch(module, x) -> bool:
    """Whether torch's own layers are known to be no slower for inputs like x; only speed depends on it.

    On a CPU they always are (bench/fused.py); in an eager loop on a GPU, where :func:`remember` has recorded it.
    """
    if not isinstance(x, Tensor):
        return False
    if conv_act.is_plain(x.device):  # first: in a small network on a CPU the time of each check shows
        return True
    return _host_counts(x) and _inputs_like(x) in _BY_TORCH.get(module, ())


def remember(module, x) -> None:
    """Records that ``module`` runs its layers one by one for inputs like x, in an eager loop on a GPU."""
    if operators_do() and _host_counts(x):
        _BY_TORCH.setdefault(module, set()).add(_inputs_like(x))


def _inputs_like(x) -> tuple:
    return x.shape, x.dtype, x.device, torch.is_grad_enabled()


def _host_counts(x) -> bool:
    return not torch.compiler.is_compiling() and _registry.host_counts(x.device)


def is_activation(module) -> bool:
    """Whether it is torch's own module of an activation in the table."""
    name = ACTIVATIONS.get(type(module))
    return name is not None and all(getattr(module, k) == v for k, v in activations.ROWS[name].fixed.items())


def group_at(layers, i):
    """(bn, act, size) of the fused group of torch's modules at layers[i]; bn and act may be None; size 1: no group."""
    bn = act = None
    end = i + 1
    if type(layers[i]) in CONVOLUTIONS:
        if end < len(layers) and type(layers[end]) is nn.BatchNorm2d:
            bn, end = layers[end], end + 1
        if end < len(layers) and is_activation(layers[end]):
            act, end = layers[end], end + 1
    return bn, act, end - i


def obstacle(conv, bn=None, act=None) -> str:
    """Why the modules cannot run as one operator, or ""; ``act`` is as in :func:`run_group`."""
    for module in (conv, bn, act):
        if isinstance(module, nn.Module) and (more := extras(module)):
            return f"{type(module).__name__} has {more}"
    if "parametrizations" in conv._modules:
        return "its weight is parametrized (spectral norm, weight norm)"
    if type(conv) not in CONVOLUTIONS:
        return f"{type(conv).__module__}.{type(conv).__name__} is not torch's own Conv2d or ConvTranspose2d"
    if conv.groups != 1:
        return f"groups={conv.groups}"
    if conv.dilation != (1, 1):
        return f"dilation={conv.dilation}"
    if conv.padding_mode != "zeros":
        return f"padding_mode={conv.padding_mode!r}"
    if isinstance(conv.padding, str):
        return f"padding={conv.padding!r}"
    if bn is not None and type(bn) is not nn.BatchNorm2d:
        return f"{type(bn).__name__} is not torch's own BatchNorm2d"
    if bn is not None and bn.num_features != conv.out_channels:
        return f"BatchNorm2d has {bn.num_features} features, the convolution {conv.out_channels} channels"
    if isinstance(act, nn.Module) and not is_activation(act):
        return f"{act} is not torch's own {LAYERS} with its default options"
    slope = activation_of(act)[1]
    return f"negative_slope={slope}" if slope < 0 else ""


def group_of(conv, bn, act) -> FusedGroup:
    """The fused group of torch's modules, which must have no :func:`obstacle`."""
    return FusedGroup(conv, bn, *activation_of(act))


def run_group(x, conv, bn, act):
    """act(bn(conv(x))) as one operator, or module by module where there is an :func:`obstacle` in this call.

    So hooks, spectral norm or another norm may be added, and modules replaced, at any time. bn may be None;
    act is a module, a function as (name, slope, in place) such as ("leaky_relu", 0.2, False), or None.
    """
    if not known_to_prefer_torch(conv, x) and takes(x) and not obstacle(conv, bn, act):
        group = group_of(conv, bn, act)
        if not group.prefers_torch(x):
            return group(x)
        remember(conv, x)
    x = conv(x) if bn is None else bn(conv(x))
    if act is None:
        return x
    return act(x) if isinstance(act, nn.Module) else reference.activate(x, *act)


def takes(x) -> bool:
    """Whether the operators accept x: not torch.fx's proxies, not one sample without a batch dimension, not "meta".

    Nothing is accepted while global module hooks are registered or torch.export is tracing.
    """
    if not isinstance(x, Tensor) or x.dim() != 4 or x.is_meta:
        return False
    return not _has_any_global_hook() and not torch.compiler.is_exporting() and operators_do()


def operators_do() -> bool:
    """Whether ganfast's operators can replace torch's: not in a torch.jit trace, under torch.func's transforms or in
    forward-mode AD, for which they have no rules.
    """
    if torch.compiler.is_compiling():
        return True
    return get_tracing_state() is None and not are_functorch_transforms_active() and forward_ad._current_level < 0


def extras(module) -> str:
    """What a call of the module does besides its class's forward, in words, or ""."""
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
        return "hooks"
    return "a forward set on it" if "forward" in vars(module) else ""


def activation_of(act):
    """(name, slope) of an activation, given as in :func:`run_group`."""
    if isinstance(act, nn.Module):
        return ACTIVATIONS[type(act)], getattr(act, "negative_slope", 0.0)
    return (None, 0.0) if act is None else act[:2]
