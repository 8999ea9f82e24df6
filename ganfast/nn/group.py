"""torch's own convolution, BatchNorm2d and activation modules, called as one operator."""

import torch.nn.functional as F
from torch import Tensor, nn

from ganfast import functional

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
ACTIVATIONS = {nn.ReLU: "relu", nn.LeakyReLU: "leaky_relu", nn.Tanh: "tanh"}
_PLAIN = {"relu": lambda x, _: F.relu(x), "leaky_relu": F.leaky_relu, "tanh": lambda x, _: x.tanh()}


def group_at(layers, i):
    """(bn, act, size) of the group that starts at layers[i]; either may be None; size 1 means that there is none."""
    bn = act = None
    end = i + 1
    if type(layers[i]) in CONVOLUTIONS:
        if end < len(layers) and type(layers[end]) is nn.BatchNorm2d:
            bn, end = layers[end], end + 1
        if end < len(layers) and type(layers[end]) in ACTIVATIONS:
            act, end = layers[end], end + 1
    return bn, act, end - i


def obstacle(conv, bn=None, act=None) -> str:
    """Why the group cannot be one operator, in words; empty where it can. ``act`` is as in :func:`run_group`."""
    for module in (conv, bn, act):
        if isinstance(module, nn.Module) and _has_hooks(module):
            return f"{type(module).__name__} has hooks"
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
    if bn is not None and (bn._parameters["weight"] is None or bn.momentum is None):
        return "BatchNorm2d with affine=False or momentum=None"
    if isinstance(act, nn.Module) and type(act) not in ACTIVATIONS:
        return f"{type(act).__name__} is not torch's own ReLU, LeakyReLU or Tanh"
    slope = _activation(act)[1]
    return f"negative_slope={slope}" if slope < 0 else ""


def run_group(x, conv, bn, act):
    """act(bn(conv(x))) as one operator, or module by module where there is an :func:`obstacle` at this very call.

    So hooks, spectral norm or another norm may be added, and modules replaced, at any time. x [N, C, H, W]; bn may be
    None; act is a module, a pair as ("leaky_relu", 0.2) for a function's, or None. torch.fx traces the modules.
    """
    if not isinstance(x, Tensor) or x.dim() != 4 or obstacle(conv, bn, act):
        x = conv(x) if bn is None else bn(conv(x))
        if act is None:
            return x
        return act(x) if isinstance(act, nn.Module) else _PLAIN[act[0]](x, act[1])
    geometry = (conv.stride, conv.padding)
    operator = functional.conv_act
    if isinstance(conv, nn.ConvTranspose2d):
        geometry, operator = (*geometry, conv.output_padding), functional.conv_transpose_bn_relu
    return operator(x, conv.weight, conv.bias, *_batch_norm(bn), *geometry, *_activation(act))


def _has_hooks(module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _activation(act):
    """(name, slope) of a module's activation, or as it was given."""
    if isinstance(act, nn.Module):
        return ACTIVATIONS[type(act)], act.negative_slope if type(act) is nn.LeakyReLU else 0.0
    return (None, 0.0) if act is None else act


def _batch_norm(bn):
    """The operators' arguments from bn_weight to eps; counts the batch in training."""
    if bn is None:
        return None, None, None, None, False, 0.0, 0.0
    mean, var = bn.running_mean, bn.running_var
    if bn.training and not bn.track_running_stats:
        mean = var = None
    elif bn.training and bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
    return bn.weight, bn.bias, mean, var, bn.training, bn.momentum, bn.eps


class GroupedSequential(nn.Sequential):
    """``torch.nn.Sequential`` that runs each convolution with the BatchNorm2d and activation behind it as one operator.

    Its layers are torch's own, for example ``ConvTranspose2d, BatchNorm2d, ReLU``, so keys, parameters, indexing and
    initialisation by class name are those of ``torch.nn.Sequential``. They are matched at each call: layers may be
    appended or replaced at any time. ``ganfast.fuse`` makes these of the Sequentials of a model.
    """

    def forward(self, input):
        layers = list(self)
        i = 0
        while i < len(layers):
            bn, act, size = group_at(layers, i)
            input = layers[i](input) if size == 1 else run_group(input, layers[i], bn, act)
            i += size
        return input
