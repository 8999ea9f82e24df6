"""torch's InstanceNorm2d and the activation after it, called as one operator."""

from torch import nn

from ganfast import reference
from ganfast.nn.fused_group import activation_of, extras, is_activation, takes
from ganfast.nn.norms import instance_norm_act


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
    fits = not norm_obstacle(norm, act) and takes(x) and x.shape[1] == norm.num_features
    if fits and x.shape[2:].numel() > 1:  # else torch says what is wrong
        return instance_norm_act(x, norm, *activation_of(act))
    x = norm(x)
    if act is None:
        return x
    return act(x) if isinstance(act, nn.Module) else reference.activate(x, *act)


def run_layers(layers, x, run=lambda layer, x, before: layer(x)):
    """Layer by layer by ``run``, which also gets the layer before, but for what :func:`run_norm` takes together."""
    i = 0
    while i < len(layers):
        norm, act, size = norm_at(layers, i)
        x = run_norm(x, norm, act) if size else run(layers[i], x, layers[i - 1] if i else None)
        i += size or 1
    return x
