"""Rules of sums, shapes, orders and parts: linear, without weights and without work to speak of."""

import math

import torch
import torch.nn.functional as F

from ganfast.penalty.rules import NotMergedError, Rule, summed


class Keep(Rule):
    """J = 1: an identity, or x plus a constant."""

    merges = True

    def __init__(self, function=lambda x: x, views=True):
        self.function, self.views = function, views

    def forward(self, run, values, weights, overwrite):
        return self.function(*values), None

    def vjp(self, saved, d):
        return (d,)

    def jvp(self, saved, ts):
        return ts[0]


class Cast(Rule):
    """Another dtype."""

    merges = True

    def __init__(self, dtype):
        self.dtype = dtype

    def forward(self, run, values, weights, overwrite):
        return values[0].to(self.dtype), values[0].dtype

    def vjp(self, saved, d):
        return (d.to(saved),)

    def jvp(self, saved, ts):
        return ts[0].to(self.dtype)


class Times(Rule):
    """c·x for a number or a constant tensor c that spreads over x."""

    merges = True

    def __init__(self, c, divides=False):
        self.c, self.divides = c, divides

    def forward(self, run, values, weights, overwrite):
        if run.start and isinstance(self.c, torch.Tensor) and self.c.dim() == values[0].dim() and len(self.c) != 1:
            raise NotMergedError("a product with a constant that has rows of its own")
        return self._times(values[0]), values[0].dtype

    def _times(self, x):
        return x / self.c if self.divides else x * self.c

    def vjp(self, saved, d):
        return (self._times(d).to(saved),)

    def jvp(self, saved, ts):
        return self._times(ts[0])


class Add(Rule):
    """x_1 + c·x_2, broadcast as torch does: a residual sum, or a difference (c = −1)."""

    fresh = merges = True

    def __init__(self, c=1):
        self.c = c

    def forward(self, run, values, weights, overwrite):
        y = torch.add(*values, alpha=self.c)
        if run.start and any(v.dim() != y.dim() for v, samples in zip(values, run.samples) if samples):
            raise NotMergedError("a sum of tensors of different numbers of dimensions")
        return y, [(v.shape, v.dtype) for v in (*values, y)]

    def rows(self, saved, rows):
        batch = saved[2][0][0]
        count = len(range(batch)[rows])
        return [((count, *s[1:]) if len(s) == len(saved[2][0]) and s[0] == batch else s, dtype) for s, dtype in saved]

    def vjp(self, saved, d):
        (a, kind_a), (b, kind_b), _ = saved
        db = d if self.c == 1 else d * self.c
        return summed(d, a).to(kind_a), summed(db, b).to(kind_b)

    def jvp(self, saved, ts):
        a, b = ts
        b = b if b is None or self.c == 1 else b * self.c
        if a is not None and b is not None:
            return a + b
        shape, dtype = saved[2]
        return (b if a is None else a).to(dtype).expand(shape)


class Reshape(Rule):
    """Elements keep their order: flatten, view, unflatten, squeeze."""

    merges = views = True

    def __init__(self, function):
        self.function = function

    def forward(self, run, values, weights, overwrite):
        y = self.function(values[0])
        return y, (values[0].shape, y.shape)

    def rows(self, saved, rows):
        return tuple((len(range(shape[0])[rows]), *shape[1:]) for shape in saved)

    def vjp(self, saved, d):
        return (d.reshape(saved[0]),)

    def jvp(self, saved, ts):
        return ts[0].reshape(saved[1])


class Permute(Rule):
    """Dimensions in another order."""

    views = True

    def __init__(self, order):
        self.order = order
        self.inverse = [order.index(i) for i in range(len(order))]
        self.merges = order[0] == 0

    def forward(self, run, values, weights, overwrite):
        return values[0].permute(self.order), None

    def vjp(self, saved, d):
        return (d.permute(self.inverse),)

    def jvp(self, saved, ts):
        return ts[0].permute(self.order)


class Sum(Rule):
    """Sum or mean over some dimensions (not negative)."""

    fresh = True

    def __init__(self, dims, keepdim, mean=False):
        self.dims, self.keepdim, self.mean = dims, keepdim, mean
        self.merges = 0 not in dims

    def forward(self, run, values, weights, overwrite):
        return self._sum(values[0]), values[0].shape

    def _sum(self, x):
        return (torch.mean if self.mean else torch.sum)(x, self.dims, self.keepdim)

    def rows(self, saved, rows):
        return (len(range(saved[0])[rows]), *saved[1:])

    def vjp(self, saved, d):
        if self.mean:
            d = d / math.prod(saved[i] for i in self.dims)
        if not self.keepdim:
            for i in sorted(self.dims):
                d = d.unsqueeze(i)
        return (d.expand(saved),)

    def jvp(self, saved, ts):
        return self._sum(ts[0])


class Part(Rule):
    """x[index] of slices, numbers, None and ...: each element once at most."""

    views = True

    def __init__(self, index):
        self.index = index if isinstance(index, tuple) else (index,)
        self.merges = isinstance(self.index[0], slice) and self.index[0] == slice(None)

    def forward(self, run, values, weights, overwrite):
        return values[0][self.index], values[0].shape

    def rows(self, saved, rows):
        return (len(range(saved[0])[rows]), *saved[1:])

    def vjp(self, saved, d):
        dx = d.new_zeros(saved)
        dx[self.index] = d
        return (dx,)

    def jvp(self, saved, ts):
        return ts[0][self.index]


class Cat(Rule):
    """x_1, x_2, … one behind the other; ``dim`` is not negative."""

    fresh = True

    def __init__(self, dim):
        self.dim, self.merges = dim, dim > 0

    def forward(self, run, values, weights, overwrite):
        return torch.cat(values, self.dim), [(v.shape, v.dtype) for v in values]

    def rows(self, saved, rows):
        return [((len(range(shape[0])[rows]), *shape[1:]), dtype) for shape, dtype in saved]

    def vjp(self, saved, d):
        parts = d.split([shape[self.dim] for shape, _ in saved], self.dim)
        return [part.to(dtype) for part, (_, dtype) in zip(parts, saved)]

    def jvp(self, saved, ts):
        like = next(t for t in ts if t is not None)
        return torch.cat(
            [like.new_zeros(shape, dtype=dtype) if t is None else t for t, (shape, dtype) in zip(ts, saved)], self.dim
        )


class Pad(Rule):
    """A constant around, as ``torch.nn.functional.pad`` does."""

    fresh = True

    def __init__(self, pad, value=None, merges=True):
        self.pad, self.value, self.merges = list(pad), value, merges

    def forward(self, run, values, weights, overwrite):
        return F.pad(values[0], self.pad, value=self.value), None

    def vjp(self, saved, d):
        return (F.pad(d, [-p for p in self.pad]),)

    def jvp(self, saved, ts):
        return F.pad(ts[0], self.pad)


class Flip(Rule):
    """x.flip(dims)."""

    fresh = True

    def __init__(self, dims):
        self.dims, self.merges = dims, 0 not in dims

    def forward(self, run, values, weights, overwrite):
        return values[0].flip(self.dims), None

    def vjp(self, saved, d):
        return (d.flip(self.dims),)

    def jvp(self, saved, ts):
        return ts[0].flip(self.dims)


class Largest(Rule):
    """The largest along a dimension."""

    fresh = True

    def __init__(self, dim, keepdim):
        self.dim, self.keepdim, self.merges = dim, keepdim, dim > 0

    def forward(self, run, values, weights, overwrite):
        y, places = values[0].max(self.dim, keepdim=True)
        return self._shaped(y), (places, values[0].shape[self.dim])

    def _shaped(self, y):
        return y if self.keepdim else y.squeeze(self.dim)

    def rows(self, saved, rows):
        return saved[0][rows], saved[1]

    def vjp(self, saved, d):
        places, size = saved
        d = d if self.keepdim else d.unsqueeze(self.dim)
        shape = list(d.shape)
        shape[self.dim] = size
        return (d.new_zeros(shape).scatter_(self.dim, places, d),)

    def jvp(self, saved, ts):
        return self._shaped(ts[0].gather(self.dim, saved[0]))
