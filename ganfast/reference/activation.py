"""The activations of ganfast/activations.py and their derivatives in plain PyTorch, by name; None leaves x alone."""

import torch
import torch.nn.functional as F

from ganfast import activations

_WORDS = {"positive": torch.relu, "exp_negative": torch.exp, "expm1_negative": torch.expm1, "log1p_unit": torch.log1p}
_IN_PLACE = {"relu": torch.relu_, "leaky_relu": F.leaky_relu_, "tanh": torch.tanh_, "sigmoid": torch.sigmoid_}


def _word(name):
    """A function of the rows' expressions; also torch's, those of torch.nn.functional and aten's derivatives."""
    if name in _WORDS:
        return _WORDS[name]
    if name.endswith("_backward"):
        return getattr(torch.ops.aten, name).default
    return getattr(torch, name, None) or getattr(F, name)


def _functions(kind, of_row) -> dict:
    """name → function of (c, z, y, slope) for an expression of each row."""
    made = {}
    for name, row in activations.ROWS.items():
        text = of_row(row)
        space = {word: _word(word) for word in activations.calls(text)}
        source = f"def {kind}(c, z, y, slope):\n{activations.python(text, '    ')}"
        activations.define(source, f"<{__name__}: {kind} of {name}>", space)
        made[name] = space[kind]
    return made


_ACTIVATE = _functions("activate", lambda row: row.torch or row.formula)
_DERIVATIVE = _functions("derivative", lambda row: row.torch_backward or row.derivative)
_PLAIN = _functions("plain", lambda row: row.from_input)
_SECOND = _functions("second", lambda row: row.second or "None")


def activate(x, activation, negative_slope=0.2, inplace=False):
    """act(x); ``inplace``: x is a new tensor whose memory may be taken."""
    if activation not in activations.ROWS:
        activations.check(activation, negative_slope)
    if inplace and activation in _IN_PLACE and negative_slope >= 0:
        return _IN_PLACE[activation](*((x, negative_slope) if activation == "leaky_relu" else (x,)))
    return _ACTIVATE[activation](None, x, None, negative_slope)


def through(c, y, activation, slope):
    """c·act'(z) from y = act(z), slope ≥ 0, for rows whose derivative is in y.

    Differentiable in c, and in y where there is a second derivative: one that is zero is not made.
    """
    if activation is None:
        return c
    row = activations.ROWS[activation]
    return _DERIVATIVE[activation](c, None, y.detach() if row.piecewise_linear else y, slope)


def pull(c, z, y, activation, slope):
    """c·act'(z) from z and y = act(z), slope ≥ 0."""
    return _DERIVATIVE[activation](c, z, y, slope)


def turn(c, y, activation, slope=0.0):
    """c·∂act'/∂y, for rows whose derivative is in y; None where it is zero."""
    return _SECOND[activation](c, None, y, slope)


def bend(c, z, y, activation, slope=0.0):
    """c·act''(z) from z and y = act(z); None where it is zero."""
    row = activations.ROWS[activation]
    if row.piecewise_linear:
        return None
    return _SECOND[activation](pull(c, z, y, activation, slope) if row.from_output else c, z, y, slope)


def slope_and_bend(z, activation, negative_slope):
    """act'(z), and act''(z) where it is not zero everywhere, else None; differentiable to any order."""
    one, row = torch.ones_like(z), activations.ROWS[activation]
    slope = _PLAIN[activation](one, z, None, negative_slope)
    if row.piecewise_linear:
        return slope, None
    y = _ACTIVATE[activation](None, z, None, negative_slope) if row.from_output else None
    return slope, _SECOND[activation](slope if row.from_output else one, z, y, negative_slope)
