"""Rules of activations and smooth functions of each element: f, f' and f''; f' by torch's own kernels."""

import math

import torch
import torch.nn.functional as F

from ganfast import activations, reference
from ganfast.penalty import layers
from ganfast.penalty.rules import Elementwise, NoRuleError
from ganfast.reference.activation import bend as _bend
from ganfast.reference.activation import pull as _pull
from ganfast.reference.activation import slope_and_bend

aten = torch.ops.aten


class Activation(Elementwise):
    """A row of ganfast/activations.py that bends."""

    def __init__(self, name, slope=0.0):
        self.name, self.slope = name, slope

    def value(self, x):
        return reference.activate(x, self.name, self.slope)

    def pull(self, d, x, y):
        return _pull(d, x, y, self.name, self.slope)

    def bent(self, saved, d, ts):
        return (_bend(d * ts[0], *saved, self.name, self.slope),)


def activation(name, slope=0.0):
    """The rule of an activation; NoRuleError for a negative slope."""
    row = activations.ROWS[name]
    if name in ("relu", "leaky_relu"):
        return layers.LeakyReLU(slope if row.has_slope else 0.0)
    if not row.piecewise_linear:
        return Activation(name, slope)
    if row.has_slope and not slope >= 0:
        raise NoRuleError(f"{name} with negative_slope={slope}")
    return layers.Sloped(lambda x: reference.activate(x, name, slope), lambda x: slope_and_bend(x, name, slope)[0])


class Softplus(Elementwise):
    """log(1 + e^βx)/β, and x itself where βx is over the threshold."""

    def __init__(self, beta=1.0, threshold=20.0):
        self.beta, self.threshold = float(beta), float(threshold)

    def value(self, x):
        return F.softplus(x, self.beta, self.threshold)

    def pull(self, d, x, y):
        return aten.softplus_backward(d, x, self.beta, self.threshold)

    def bend(self, x, y):
        s = (self.beta * x).sigmoid()
        return (1 - s).mul_(s).mul_(self.beta).masked_fill_(self.beta * x > self.threshold, 0)


class ApproximateGELU(Elementwise):
    """x·(1 + T)/2, T = tanh u, u = k·(x + c·x³)."""

    def value(self, x):
        return F.gelu(x, approximate="tanh")

    def pull(self, d, x, y):
        return aten.gelu_backward(d, x, approximate="tanh")

    def bend(self, x, y):
        square = x * x
        k, c = math.sqrt(2 / math.pi), 0.044715
        tanh, slope = (k * x * (1 + c * square)).tanh_(), k * (1 + 3 * c * square)
        return (1 - tanh * tanh) * (slope + 0.5 * x * (6 * k * c * x - 2 * tanh * slope * slope))


def gelu(approximate="none"):
    return Activation("gelu") if approximate == "none" else ApproximateGELU()


class ELU(Elementwise):
    """scale·x where x is positive, else scale·α·(e^(x·input_scale) − 1): SELU, too."""

    def __init__(self, alpha=1.0, scale=1.0, input_scale=1.0):
        self.arguments = float(alpha), float(scale), float(input_scale)

    def value(self, x):
        return aten.elu(x, *self.arguments)

    def pull(self, d, x, y):
        return aten.elu_backward(d, *self.arguments, False, x)

    def bend(self, x, y):
        alpha, scale, input_scale = self.arguments
        return ((y + alpha * scale) * input_scale**2).masked_fill_(x > 0, 0)


class Mish(Elementwise):
    """x·tanh(softplus(x))."""

    def value(self, x):
        return F.mish(x)

    def pull(self, d, x, y):
        return aten.mish_backward(d, x)

    def bend(self, x, y):
        s, t = x.sigmoid(), F.softplus(x).tanh()
        slope = (1 - t * t) * s
        return 2 * slope + x * (slope * (1 - s) - 2 * t * s * slope)


class Hardswish(Elementwise):
    def value(self, x):
        return F.hardswish(x)

    def pull(self, d, x, y):
        return aten.hardswish_backward(d, x)

    def bend(self, x, y):
        return ((x > -3) & (x < 3)).to(x.dtype).mul_(1 / 3)


class Function(Elementwise):
    """f, f' and f'' as functions of (x, y)."""

    def __init__(self, value, slope, bend):
        self.value, self.slope, self.bend = value, slope, bend


def exp():
    return Function(torch.exp, lambda x, y: y, lambda x, y: y)


def log():
    return Function(torch.log, lambda x, y: x.reciprocal(), lambda x, y: -(x * x).reciprocal())


def square():
    return Function(torch.square, lambda x, y: 2 * x, lambda x, y: torch.full_like(x, 2.0))


def power(n):
    """x^n for a number n: 0.5 for a root."""
    return Function(lambda x: x.pow(n), lambda x, y: n * x.pow(n - 1), lambda x, y: n * (n - 1) * x.pow(n - 2))


def sin():
    return Function(torch.sin, lambda x, y: x.cos(), lambda x, y: -y)


def cos():
    return Function(torch.cos, lambda x, y: -x.sin(), lambda x, y: -y)


def atan():
    return Function(torch.atan, lambda x, y: 1 / (1 + x * x), lambda x, y: -2 * x / (1 + x * x).square())


def log_sigmoid():
    return Function(F.logsigmoid, lambda x, y: (-x).sigmoid(), lambda x, y: -x.sigmoid() * (-x).sigmoid())


def softsign():
    return Function(F.softsign, lambda x, y: (1 + x.abs()).pow(-2), lambda x, y: -2 * x.sign() * (1 + x.abs()).pow(-3))
