"""Rules that stand for themselves: convolutions, linear layers, piecewise-linear activations, pooling."""

import math

import torch
import torch.nn.functional as F

from ganfast.penalty.rules import NoRuleError, Rule, form_of, form_rows, like

aten = torch.ops.aten


class Affine(Rule):
    """What convolutions and linear layers share: y = W·x + b, their weights, casts and sums."""

    fresh = merges = True

    def __init__(self, weight, bias=None):
        self._weights = (weight,) if bias is None else (weight, bias)

    def weights(self):
        return self._weights

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

    def adjoint(self, saved, p, need, below=True):
        x, w, dtype, dtypes = saved
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

    def __init__(self, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
        super().__init__(weight, bias)
        self.geometry = stride, padding, dilation, transposed, output_padding, groups

    def apply(self, x, w, b=None):
        return torch.convolution(x, w, b, *self.geometry)

    def backward(self, x, w, d, mask):
        return (
            aten.convolution_backward(d, x, w, None, *self.geometry, [*mask, False])[:2] if any(mask) else (None, None)
        )

    def bias_gradient(self, d):
        return d.sum([0, *range(2, d.dim())])


class LeakyReLU(Rule):
    """x where positive, else slope·x, slope ≥ 0: y has the sign of x, which is all that a derivative asks."""

    merges = True
    spends = False  # whether vjp may overwrite d, which then is a new tensor of a layer above

    def __init__(self, slope=0.0):
        self.slope = float(slope)
        if not self.slope >= 0:
            raise NoRuleError(f"LeakyReLU with negative_slope={slope}")

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


class Sloped(Rule):
    """y = f(x), piecewise linear in each element: ``function`` and its ``slope(x)``, which has no slope of its own."""

    merges = True

    def __init__(self, function, slope):
        self.function, self.slope = function, slope

    def forward(self, run, values, weights, overwrite):
        return self.function(values[0]), self.slope(values[0])

    def rows(self, saved, rows):
        return saved[rows]

    def vjp(self, saved, d):
        return (d * saved,)

    def jvp(self, saved, ts):
        return ts[0] * saved


class Masked(Sloped):
    """Dropout: the mask of the forward pass, in all others too; of whole channels it is [B, C, 1, …]."""

    fresh = True

    def __init__(self, draw, channels=False):
        super().__init__(None, lambda x: draw(_ones(x, channels)))

    def forward(self, run, values, weights, overwrite):
        mask = self.slope(values[0])
        return values[0] * mask, mask


def _ones(x, channels):
    return x.new_ones(*x.shape[:2], *[1] * (x.dim() - 2)) if channels else torch.ones_like(x)


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


class Pick(Rule):
    """Each y is one x of the same sample and channel: maximum pooling, by the places of the largest.

    ``function(x)`` gives (y, places), which count over the last ``dims`` dimensions of x.
    """

    fresh = merges = True

    def __init__(self, function, dims):
        self.function, self.dims = function, dims

    def forward(self, run, values, weights, overwrite):
        (x,) = values
        y, places = self.function(x)
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
