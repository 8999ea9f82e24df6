"""The rule of LayerNorm, GroupNorm and InstanceNorm: statistics within a sample, with their second-order term.

With x̂ = r·(x − mean x), r = 1/√(var x + ε), over the m elements of a group, and y = γ·x̂ + β:

    N(a) = r·(a − mean a − x̂·mean(x̂·a))            symmetric; J t = γ·N(t), Jᵀd = N(γ·d)
    ∂/∂x (a·N(t)) = −r²·(Q − A·T)·x̂ − N(r·(T·a + A·t))     A = mean(x̂·a), T = mean(x̂·t), Q = mean(a·t) − mean a·mean t
    ∂/∂γ (d·J t) = Σ d·N(t)
"""

import torch

from ganfast.penalty.rules import Rule


class Norm(Rule):
    """``groups`` of the channels, or None for LayerNorm over the dimensions of ``shape``."""

    curved = fresh = True

    def __init__(self, module, groups=None, shape=None):
        self.module, self.groups, self.shape = module, groups, shape

    def weights(self):
        return tuple(w for w in (self.module.weight, self.module.bias) if w is not None)

    def _split(self, x):
        """x as [B, groups, channels of a group, …], a view whatever the order in memory; LayerNorm: as it is."""
        return x if self.groups is None else x.unflatten(1, (self.groups, -1))

    def _dims(self, x):
        """Dimensions of a group, and of x that γ does not have, in the split form."""
        if self.groups is None:
            first = x.dim() - len(self.shape)
            return list(range(first, x.dim())), list(range(first))
        return list(range(2, x.dim())), [0, *range(3, x.dim())]

    def _wide(self, w, x):
        """A weight against split x."""
        return w if self.groups is None else w.view(self.groups, -1, *[1] * (x.dim() - 3))

    def forward(self, run, values, weights, overwrite):
        (x,) = values
        wide = x.float() if run.dtype else x
        split = self._split(wide)
        dims, _ = self._dims(split)
        variance, mean = torch.var_mean(split, dims, correction=0, keepdim=True)
        r = (variance + self.module.eps).rsqrt()
        unit = (split - mean) * r
        weights = [self._wide(w, split).to(split.dtype) for w in weights]
        y = unit
        if len(weights) == 2:
            y = torch.addcmul(weights[1], unit, weights[0])
        elif weights:
            y = unit * weights[0]
        y = y.reshape(x.shape) if weights else unit.reshape(x.shape).clone()
        shapes = [(w.shape, w.dtype) for w in self.weights()]
        return y, (unit, r, weights[0] if weights else None, x.dtype, shapes)

    def _project(self, unit, r, a):
        """N(a)."""
        dims, _ = self._dims(unit)
        along = (unit * a).mean(dims, keepdim=True)
        return torch.addcmul(a - a.mean(dims, keepdim=True), unit, along, value=-1).mul_(r)

    def _scaled(self, saved, d):
        """γ·d, split."""
        d = self._split(d)
        return d if saved[2] is None else d * saved[2]

    def vjp(self, saved, d, start=0):
        return (self._project(*saved[:2], self._scaled(saved, d)).reshape(d.shape).to(saved[3]),)

    def jvp(self, saved, ts, start=0):
        unit, r, gamma, _, _ = saved
        t = self._project(unit, r, self._split(ts[0]).to(unit.dtype))
        return (t if gamma is None else t * gamma).reshape(ts[0].shape)

    def adjoint(self, saved, p, d, ts, need):
        unit, r, gamma, dtype, shapes = saved
        dims, rest = self._dims(unit)
        shape = unit.shape if self.groups is None else unit.flatten(1, 2).shape
        inner, outer, dw = None, 0, [None] * len(shapes)
        parts = []
        if ts[0] is not None:
            t, a = self._split(ts[0]).to(unit.dtype), self._scaled(saved, d)
            of_a, of_t = (unit * a).mean(dims, keepdim=True), (unit * t).mean(dims, keepdim=True)
            both = (a * t).mean(dims, keepdim=True) - a.mean(dims, keepdim=True) * t.mean(dims, keepdim=True)
            inner = -r * (of_t * a + of_a * t)
            outer = r * r * (both - of_a * of_t)
            if need and need[0]:
                parts.append((self._split(d) * self._project(unit, r, t)).sum(rest))
        if p is not None:
            scaled = self._scaled(saved, p)
            inner = scaled if inner is None else inner.add_(scaled)
            if need and need[0]:
                parts.append((self._split(p) * unit).sum(rest))
            if len(need) > 1 and need[1]:
                dw[1] = self._split(p).sum(rest).view(shapes[1][0]).to(shapes[1][1])
        if parts:
            dw[0] = sum(parts).view(shapes[0][0]).to(shapes[0][1])
        return ((self._project(unit, r, inner) - outer * unit).reshape(shape).to(dtype),), dw
