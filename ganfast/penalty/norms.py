"""The rule of LayerNorm, GroupNorm and InstanceNorm: statistics within a sample, with their second-order term.

With x̂ = r·(x − mean x), r = 1/√(var x + ε), over the m elements of a group, and y = γ·x̂ + β:

    N(a) = r·(a − mean a − x̂·mean(x̂·a))            symmetric; J t = γ·N(t), Jᵀd = N(γ·d)
    ∂/∂x (a·N(t)) = −r²·(Q − A·T)·x̂ − N(r·(T·a + A·t))     A = mean(x̂·a), T = mean(x̂·t), Q = mean(a·t) − mean a·mean t
    ∂/∂γ (d·J t) = Σ d·N(t)

N is the backward pass of torch's own normalisation with γ = 1.
"""

import math

import torch

from ganfast.penalty.rules import Rule

aten = torch.ops.aten


def _in_order(x):
    """The numbers of each sample in one row, in the order in which they lie; None where that takes a copy."""
    if x.is_contiguous():
        return x.view(x.shape[0], -1)
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).view(x.shape[0], -1)
    return None


class GroupNorm(Rule):
    """Also InstanceNorm: a group for each channel (``groups`` is None)."""

    curved = fresh = True

    def __init__(self, module, groups=None):
        self.module, self.groups = module, groups

    def weights(self):
        return tuple(w for w in (self.module.weight, self.module.bias) if w is not None)

    def forward(self, run, values, weights, overwrite):
        (x,) = values
        x, dtype = (x.float() if run.dtype else x), x.dtype
        x = x if _in_order(x) is not None else x.contiguous()
        gamma, beta = (*weights, None, None)[:2]
        y, mean, r = self._normalise(x, gamma, beta)
        return y, {"x": x, "mean": mean, "r": r, "gamma": gamma, "dtype": dtype}

    def _sizes(self, x):
        groups = self.groups or x.shape[1]
        return x.shape[0], x.shape[1], math.prod(x.shape[2:]), groups

    def _normalise(self, x, gamma, beta):
        return torch.native_group_norm(x, gamma, beta, *self._sizes(x), self.module.eps)

    def _pull(self, saved, d, gamma, mask):
        """N(γ·d), Σ d·x̂ and Σ d, those that ``mask`` asks for."""
        x = saved["x"]
        d = d.to(x.dtype)
        d = d.contiguous() if x.is_contiguous() else d.contiguous(memory_format=torch.channels_last)
        return aten.native_group_norm_backward(d, x, saved["mean"], saved["r"], gamma, *self._sizes(x), mask)

    def _project(self, saved, a):
        return self._pull(saved, a, None, [True, False, False])[0]

    def _wide(self, gamma, x):
        """γ against x."""
        return gamma.view(-1, *[1] * (x.dim() - 2))

    def _mean(self, a, b=None):
        """Mean of a, or of a·b, over each group: [B, groups]."""
        batch, _, _, groups = sizes = self._sizes(a)
        if b is not None:
            rows = (_in_order(a), _in_order(b)) if groups == 1 and a.stride() == b.stride() else (None, None)
            if rows[0] is not None:
                return (rows[0].unsqueeze(1) @ rows[1].unsqueeze(2)).view(batch, 1) / rows[0].shape[1]
            a = a * b
        return a.sum(list(range(2, a.dim()))).view(batch, groups, -1).sum(2) / (sizes[1] // groups * sizes[2])

    def _spread(self, c, x):
        """A number for each group against x."""
        c = c if c.shape[1] == 1 else c.repeat_interleave(x.shape[1] // c.shape[1], 1)
        return c.view(*c.shape, *[1] * (x.dim() - 2))

    def _sum(self, a):
        """Of each channel."""
        return a.sum([0, *range(2, a.dim())])

    def vjp(self, saved, d, start=0):
        return (self._pull(saved, d, saved["gamma"], [True, False, False])[0].to(saved["dtype"]),)

    def jvp(self, saved, ts, start=0):
        t = saved["Nt"] = self._project(saved, ts[0])
        return t if saved["gamma"] is None else t * self._wide(saved["gamma"], t)

    def adjoint(self, saved, p, d, ts, need):
        need = [*need, False, False][:2]
        dx = dgamma = dbeta = None
        if p is not None:  # dx always: without it torch's kernel for channels_last reads where it must not
            dx, dgamma, dbeta = self._pull(saved, p, saved["gamma"], [True, *need])
        if ts[0] is not None:
            bent = self._bent(saved, d.to(saved["x"].dtype), ts[0].to(saved["x"].dtype))
            dx = bent if dx is None else dx.add_(bent)
            if need[0]:
                more = self._sum(d * saved["Nt"])
                dgamma = more if dgamma is None else dgamma + more
        dw = [None if g is None else g.to(w.dtype) for g, w in zip((dgamma, dbeta), self.weights())]
        return (dx.to(saved["dtype"]),), dw

    def _bent(self, saved, d, t):
        """∂/∂x (d·J t)."""
        x, mean, r = saved["x"], saved["mean"], saved["r"]
        a = d if saved["gamma"] is None else d * self._wide(saved["gamma"], x)
        mean_a, mean_t = self._mean(a), self._mean(t)
        of_a = r * (self._mean(x, a) - mean * mean_a)
        of_t = r * (self._mean(x, t) - mean * mean_t)
        both = self._mean(a, t) - mean_a * mean_t
        inner = (a * self._spread(-r * of_t, x)).addcmul_(t, self._spread(-r * of_a, x))
        along = -r * r * r * (both - of_a * of_t)
        return self._project(saved, inner).addcmul_(x, self._spread(along, x)).sub_(self._spread(along * mean, x))


class LayerNorm(GroupNorm):
    """Over the last dimensions, those of ``normalized_shape``; its weights have that shape."""

    def forward(self, run, values, weights, overwrite):
        return super().forward(run, [values[0].contiguous()], weights, overwrite)

    def _normalise(self, x, gamma, beta):
        return torch.native_layer_norm(x, self.module.normalized_shape, gamma, beta, self.module.eps)

    def _pull(self, saved, d, gamma, mask):
        x, shape = saved["x"], self.module.normalized_shape
        d = d.to(x.dtype).contiguous()
        beta = gamma if mask[2] else None  # only its being there matters
        return aten.native_layer_norm_backward(d, x, shape, saved["mean"], saved["r"], gamma, beta, mask)

    def _wide(self, gamma, x):
        return gamma

    def _mean(self, a, b=None):
        a = a if b is None else a * b
        return a.mean(list(range(a.dim() - len(self.module.normalized_shape), a.dim())), keepdim=True)

    def _spread(self, c, x):
        return c

    def _sum(self, a):
        return a.sum(list(range(a.dim() - len(self.module.normalized_shape))))
