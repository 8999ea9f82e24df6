"""Rules written out, where speed matters: convolutions, linear layers, piecewise-linear and smooth activations."""

import math

import torch
import torch.nn.functional as F
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ganfast.penalty.rules import Elementwise, MixedRowsError, NoRuleError, Rule, form_of, form_rows, like

aten = torch.ops.aten


class Keep(Rule):
    """J = 1: an identity, or x plus a constant."""

    merges = True

    def __init__(self, function=lambda x: x):
        self.function = function

    def forward(self, run, values, weights, overwrite):
        return self.function(*values), [isinstance(v, torch.Tensor) and a for v, a in zip(values, run.active)]

    def vjp(self, saved, d):
        return [d if a else None for a in saved]

    def jvp(self, saved, ts):
        return next(t for t in ts if t is not None)


class Add(Rule):
    """x_1 + x_2: a residual sum, broadcast as torch does."""

    fresh = merges = True

    def forward(self, run, values, weights, overwrite):
        y = values[0] + values[1]
        saved = [(getattr(v, "shape", ()), getattr(v, "dtype", y.dtype)) for v in (*values, y)]
        if run.start and len({len(shape) for shape, _ in saved}) > 1:
            raise MixedRowsError
        return y, saved

    def rows(self, saved, rows):
        count = len(range(saved[2][0][0])[rows])
        return [((count, *shape[1:]), dtype) for shape, dtype in saved]

    def vjp(self, saved, d):
        return [(d if shape == d.shape else d.sum_to_size(shape)).to(dtype) for shape, dtype in saved[:2]]

    def jvp(self, saved, ts):
        a, b = ts
        if a is not None and b is not None:
            return a + b
        shape, dtype = saved[2]
        return (b if a is None else a).to(dtype).expand(shape)


class Reshape(Rule):
    """Elements keep their order: flatten, view, unflatten, squeeze."""

    merges = True

    def __init__(self, function):
        self.function = function

    def forward(self, run, values, weights, overwrite):
        y = self.function(*values)
        return y, (values[0].shape, y.shape, len(values))

    def rows(self, saved, rows):
        return (*((len(range(shape[0])[rows]), *shape[1:]) for shape in saved[:2]), saved[2])

    def vjp(self, saved, d):
        return [d.reshape(saved[0])] + [None] * (saved[2] - 1)

    def jvp(self, saved, ts):
        return ts[0].reshape(saved[1])


class Affine(Rule):
    """What convolutions and linear layers share: y = W·x + b, their weights, casts and sums."""

    fresh = merges = True

    def __init__(self, module):
        self.module = module

    def weights(self):
        for hook in self.module._forward_pre_hooks.values():
            if isinstance(hook, (SpectralNorm, WeightNorm)):  # torch.nn.utils' older form makes the weight in a hook
                hook(self.module, None)
        bias = self.module.bias
        return (self.module.weight,) if bias is None else (self.module.weight, bias)

    def forward(self, run, values, weights, overwrite):
        (x,) = values
        cast = (x, *weights) if run.dtype is None else [v.to(run.dtype) for v in (x, *weights)]
        return self.apply(*cast), (cast[0], cast[1], x.dtype, [w.dtype for w in weights])

    def rows(self, saved, rows):
        return saved[0][rows], *saved[1:]

    def jvp(self, saved, ts):
        x, w, _, _ = saved
        return self.apply(ts[0].to(x.dtype), w)

    def cross(self, saved, d, ts, need):
        x, w, _, dtypes = saved
        t = None if ts[0] is None else ts[0].to(x.dtype)
        return self._gradients(t, w, d, None, dtypes, [False, need[0] and t is not None])[1:]

    def cross_over(self, saved, d, ts, need, start):
        x, w, _, dtypes = saved
        x[start:].copy_(ts[0])  # over the rows that no one reads again
        return self._gradients(x, w, d, d[:start], dtypes, [False, *need])[1:]

    def adjoint(self, saved, p, d, ts, need, start=0, below=True):
        x, w, dtype, dtypes = self.first(saved, p, start)
        dx, *dw = self._gradients(x, w, p, p, dtypes, [below, *need])
        return (dx if dx is None else dx.to(dtype),), dw

    def _gradients(self, x, w, d, d_bias, dtypes, mask):
        """Of x, of the weight, of the bias: those that ``mask`` asks for."""
        found = [*self.backward(x, w, d, mask[:2]), *[None] * (len(dtypes) - 1)]
        if len(mask) > 2 and mask[2]:
            found[2] = self.bias_gradient(d_bias)
        return [found[0], *(g if g is None else g.to(dtype) for g, dtype in zip(found[1:], dtypes))]

    def vjp(self, saved, d):
        x, w, dtype, _ = saved
        return (self.backward(x, w, d, [True, False])[0].to(dtype),)


class Linear(Affine):
    """x [B, …, in] → [B, …, out]."""

    apply = staticmethod(F.linear)

    def backward(self, x, w, d, mask):
        """Of x and of the weight: those that ``mask`` asks for."""
        dw = None
        if mask[1]:
            dw = d.reshape(-1, d.shape[-1]).t() @ x.reshape(-1, x.shape[-1])
        return d @ w if mask[0] else None, dw

    def bias_gradient(self, d):
        return d.reshape(-1, d.shape[-1]).sum(0)


class Conv(Affine):
    """Convolutions of 1 to 3 dimensions with zeros around, transposed ones too."""

    def __init__(self, module):
        super().__init__(module)
        self.geometry = (
            module.stride, module.padding, module.dilation, module.transposed, module.output_padding, module.groups,
        )  # fmt: skip

    def apply(self, x, w, b=None):
        return torch.convolution(x, w, b, *self.geometry)

    def backward(self, x, w, d, mask):
        return (
            aten.convolution_backward(d, x, w, None, *self.geometry, [*mask, False])[:2] if any(mask) else (None, None)
        )

    def bias_gradient(self, d):
        return d.sum([0, *range(2, d.dim())])


def plain_conv(module) -> bool:
    """Whether torch.convolution is all that the module does."""
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)


class LeakyReLU(Rule):
    """x where positive, else slope·x, slope ≥ 0: y has the sign of x, which is all that a derivative asks."""

    merges = True
    spends = False  # whether vjp may overwrite d, which then is a new tensor of a layer above

    def __init__(self, slope=0.0):
        if slope < 0:
            raise NoRuleError(f"LeakyReLU with negative_slope={slope}")
        self.slope = slope

    def forward(self, run, values, weights, overwrite):
        (x,) = values
        y = F.leaky_relu(x, self.slope, overwrite) if self.slope else F.relu(x, overwrite)
        return y, y

    def rows(self, saved, rows):
        return saved[rows]

    def _masked(self, d, y, out=None):
        """d where y is positive, else slope·d; into ``out`` where that is given."""
        if out is None:
            return aten.leaky_relu_backward(d, y, self.slope, True)
        if torch.compiler.is_compiling():  # which fuses the copy
            return out.copy_(aten.leaky_relu_backward(d, y, self.slope, True))
        return aten.leaky_relu_backward.grad_input(d, y, self.slope, True, grad_input=out)

    def vjp(self, saved, d):
        return (self._masked(d, saved, d if self.spends and d.stride() == saved.stride() else None),)

    def jvp(self, saved, ts):
        return self._masked(ts[0], saved)

    def jvp_over(self, saved, ts):
        return self._masked(ts[0], saved, saved)


class AvgPool2d(Rule):
    """Arguments as ``torch.nn.functional.avg_pool2d``."""

    fresh = merges = True

    def __init__(
        self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
    ):  # fmt: skip
        sizes = [
            list(s) if isinstance(s, (tuple, list)) else [s] for s in (kernel_size, stride or kernel_size, padding)
        ]
        self.arguments = (*sizes, ceil_mode, count_include_pad, divisor_override)

    def forward(self, run, values, weights, overwrite):
        return aten.avg_pool2d(values[0], *self.arguments), form_of(values[0])

    def rows(self, saved, rows):
        return form_rows(saved, rows)

    def vjp(self, saved, d):
        return (aten.avg_pool2d_backward(d, like(saved), *self.arguments),)

    def jvp(self, saved, ts):
        return aten.avg_pool2d(ts[0], *self.arguments)


class Masked(Rule):
    """Dropout: the mask of the forward pass, in all others too."""

    fresh = merges = True

    def __init__(self, draw):
        self.draw = draw

    def forward(self, run, values, weights, overwrite):
        (x,) = values
        mask = self.draw(torch.ones_like(x))
        return x * mask, mask

    def rows(self, saved, rows):
        return saved[rows]

    def vjp(self, saved, d):
        return (d * saved,)

    def jvp(self, saved, ts):
        return ts[0] * saved


class MaxPool(Rule):
    """The places of the largest elements, in all passes."""

    fresh = merges = True

    def __init__(self, pool, dims):
        self.pool, self.dims = pool, dims

    def forward(self, run, values, weights, overwrite):
        (x,) = values
        y, places = self.pool(x)
        return y, (places, x.shape[1:])

    def rows(self, saved, rows):
        return saved[0][rows], saved[1]

    def vjp(self, saved, d):
        places, shape = saved
        shape = len(places), *shape
        flat = d.new_zeros(*shape[: -self.dims], math.prod(shape[-self.dims :]))
        return (flat.scatter_add_(-1, places.flatten(-self.dims), d.flatten(-self.dims)).reshape(shape),)

    def jvp(self, saved, ts):
        places = saved[0]
        return ts[0].flatten(-self.dims).gather(-1, places.flatten(-self.dims)).reshape(places.shape)


class Tanh(Elementwise):
    def value(self, x):
        return x.tanh()

    def slope(self, x, y):
        return 1 - y * y

    def bend(self, x, y):
        return -2 * y * (1 - y * y)


class Sigmoid(Elementwise):
    def value(self, x):
        return x.sigmoid()

    def slope(self, x, y):
        return y * (1 - y)

    def bend(self, x, y):
        return y * (1 - y) * (1 - 2 * y)


class SiLU(Elementwise):
    def value(self, x):
        return F.silu(x)

    def slope(self, x, y):
        s = x.sigmoid()
        return s * (1 + x * (1 - s))

    def bend(self, x, y):
        s = x.sigmoid()
        return s * (1 - s) * (2 + x * (1 - 2 * s))


class Softplus(Elementwise):
    """log(1 + e^βx)/β, and x itself where βx is over the threshold."""

    def __init__(self, beta=1.0, threshold=20.0):
        self.beta, self.threshold = beta, threshold

    def value(self, x):
        return F.softplus(x, self.beta, self.threshold)

    def slope(self, x, y):
        s = (self.beta * x).sigmoid()
        return torch.where(self.beta * x > self.threshold, torch.ones_like(s), s)

    def bend(self, x, y):
        s = (self.beta * x).sigmoid()
        return torch.where(self.beta * x > self.threshold, torch.zeros_like(s), self.beta * s * (1 - s))


class GELU(Elementwise):
    """x·Φ(x), or its approximation by tanh."""

    def __init__(self, approximate="none"):
        self.approximate = approximate

    def value(self, x):
        return F.gelu(x, approximate=self.approximate)

    def _tanh(self, x):
        """T = tanh u and u', u'' of u = √(2/π)·(x + 0.044715·x³)."""
        k, c = math.sqrt(2 / math.pi), 0.044715
        return (k * (x + c * x**3)).tanh(), k * (1 + 3 * c * x * x), 6 * k * c * x

    def _normal(self, x):
        return torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)

    def slope(self, x, y):
        if self.approximate == "none":
            return torch.special.ndtr(x) + x * self._normal(x)
        tanh, u, _ = self._tanh(x)
        return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * u

    def bend(self, x, y):
        if self.approximate == "none":
            return self._normal(x) * (2 - x * x)
        tanh, u, du = self._tanh(x)
        return (1 - tanh * tanh) * (u + 0.5 * x * (du - 2 * tanh * u * u))
