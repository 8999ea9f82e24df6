"""torch's InstanceNorm2d and the activation after it, called as one operator."""

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from ganfast import reference
from ganfast.nn.fused_group import activation_of, extras, is_activation
from ganfast.nn.norms import instance_norm_act, is_small


def norm_at(layers, i):
    """(norm, act, size) at layers[i]; without a norm there None, None, 0, and act may be None."""
    if i >= len(layers) or type(layers[i]) is not nn.InstanceNorm2d:
        return None, None, 0
    if i + 1 < len(layers) and is_activation(layers[i + 1]):
        return layers[i], layers[i + 1], 2
    return layers[i], None, 1


def norm_obstacle(norm, act=None) -> str:
    """Why the modules cannot run as one operator, or ""; ``act`` is as in :func:`run_norm`."""
    for module in (norm, act):
        if isinstance(module, nn.Module) and (more := extras(module)):
            return f"{type(module).__name__} has {more}"
    if type(norm) is not nn.InstanceNorm2d:
        return f"{type(norm).__name__} is not torch's own InstanceNorm2d"
    if isinstance(act, nn.Module) and not is_activation(act):
        return f"{act} is not one of ganfast's activations with its default options"
    return ""


def run_norm(x, norm, act):
    """act(norm(x)) as one operator, or module by module where there is an :func:`norm_obstacle` in this call.

    act is a module, a function as (name, slope, in place) such as ("leaky_relu", 0.2, False), or None.
    """
    takes = isinstance(x, Tensor) and x.dim() == 4 and (x.shape[0] == 1 or not is_small(x))
    takes = takes and x.shape[1] == norm.num_features and x.shape[2:].numel() > 1  # else torch says what is wrong
    if takes and not _has_any_global_hook() and not norm_obstacle(norm, act):
        return instance_norm_act(x, norm, *activation_of(act))
    x = norm(x)
    if act is None:
        return x
    return act(x) if isinstance(act, nn.Module) else reference.activate(x, *act)


def run_layers(layers, x, run=None):
    """Layer by layer, but for what :func:`run_norm` takes together.

    Or by run(layer, x, the layer before), for double backward, which is no faster through the operator.
    """
    i = 0
    while i < len(layers):
        layer, size = layers[i], 1
        if type(layer) is nn.InstanceNorm2d and (run is None or x.shape[:1] == (1,)):  # see norms.instance_norm
            norm, act, size = norm_at(layers, i)
            x = run_norm(x, norm, act)
        else:
            x = layer(x) if run is None else run(layer, x, layers[i - 1] if i else None)
        i += size
    return x
