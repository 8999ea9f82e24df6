"""The rules of LayerNorm, GroupNorm and InstanceNorm: statistics within a sample, with their second-order term.

With x̂ = r·(x − mean x), r = 1/√(var x + ε), over the m elements of a group, y = γ·x̂ + β, and a = γ·d:

    N(a) = r·(a − mean a − x̂·mean(x̂·a))            symmetric; J t = γ·N(t), Jᵀd = N(a)
    ∂/∂x (d·J t) = −r·(mean(a·N(t))·x̂ + mean(x̂·t)·N(a) + mean(x̂·a)·N(t))
    ∂/∂γ (d·J t) = Σ d·N(t)

N is the backward pass of torch's own normalisation with γ = 1; both N(a) and N(t) are there when the last is made.
"""

import math

import torch

from ganfast.penalty.rules import Rule, is_channels_last

aten = torch.ops.aten


class Norm(Rule):
    """What the normalisations share. A kind says how a tensor is laid out for its kernels, and calls these."""

    curved = fresh = merges = True

    def __init__(self, weight, bias, eps):
        self.weight, self.bias, self.eps = weight, bias, eps

    def weights(self):
        return tuple(w for w in (self.weight, self.bias) if w is not None)

    def _pair(self, given, missing=None):
        """Of γ and of β."""
        given = iter(given)
        return [missing if w is None else next(given) for w in (self.weight, self.bias)]

    def forward(self, run, values, weights, overwrite):
        (x,) = values
        half = x.dtype in (torch.float16, torch.bfloat16)
        form = self._form(x)
        wide = self._laid_out(x.float() if half else x, form)
        gamma, beta = (None if w is None else self._of_weight(w.to(wide.dtype), form) for w in self._pair(weights))
        y, mean, r = self._normalise(wide, gamma, beta)
        kinds = [(w.shape, w.dtype) for w in weights]
        saved = {"x": wide, "mean": mean, "r": r, "gamma": gamma, "form": form, "dtype": x.dtype, "weights": kinds}
        y = self._back(y, form)
        y = y if run.dtype else y.to(x.dtype)  # autocast leaves norms in fp32
        return y, saved | {"result": y.dtype, "sweep": {}}

    def rows(self, saved, rows):
        return {**saved, **{name: saved[name][rows] for name in ("x", "mean", "r")}}

    def vjp(self, saved, d):
        found = saved["sweep"]["Na"] = self._pull(saved, self._in(saved, d), saved["gamma"], [True, False, False])[0]
        return (self._out(saved, found),)

    def jvp(self, saved, ts):
        t = saved["sweep"]["Nt"] = self._pull(saved, self._in(saved, ts[0]), None, [True, False, False])[0]
        t = self._back(t if saved["gamma"] is None else t * self._wide(saved["gamma"], t), saved["form"])
        return t.to(saved["result"])

    def cross(self, saved, d, ts, need):
        if self.weight is None or not need[0]:
            return ()
        return (self._to_weight(self._sum(self._in(saved, d) * saved["sweep"]["Nt"]), saved, 0),)

    def bent(self, saved, d, ts):
        x, mean, r, sweep = saved["x"], saved["mean"], saved["r"], saved["sweep"]
        t, a = self._in(saved, ts[0]), self._in(saved, d)
        a = a if saved["gamma"] is None else a * self._wide(saved["gamma"], x)
        along = -r * r * self._mean(a, sweep["Nt"])
        of_a, of_t = (-r * r * (self._mean(x, v) - mean * self._mean(v)) for v in (a, t))
        found = torch.addcmul(self._spread(-along * mean, x), x, self._spread(along, x))
        found.addcmul_(sweep["Na"], self._spread(of_t, x)).addcmul_(sweep["Nt"], self._spread(of_a, x))
        return (self._out(saved, found),)

    def forget(self, saved):
        saved["sweep"].clear()

    def adjoint(self, saved, p, need, below=True):
        # dx always: without it torch's kernel for channels_last reads where it must not
        dx, *dw = self._pull(saved, self._in(saved, p), saved["gamma"], [True, *self._pair(need, False)])
        dw = [g for g, w in zip(dw, (self.weight, self.bias)) if w is not None]
        dw = [self._to_weight(g, saved, k) if n else None for k, (g, n) in enumerate(zip(dw, need))]
        return (self._out(saved, dx),), dw

    def _in(self, saved, a):
        return self._laid_out(a.to(saved["x"].dtype), saved["form"])

    def _out(self, saved, a):
        return self._back(a, saved["form"]).to(saved["dtype"])


class GroupNorm(Norm):
    """In NCHW and, on a CPU, in channels_last."""

    def __init__(self, weight, bias, eps, groups):
        super().__init__(weight, bias, eps)
        self.groups = groups

    def _form(self, x):
        last = x.device.type == "cpu" and is_channels_last(x)  # torch's CUDA kernel takes NCHW alone
        return torch.channels_last if last else torch.contiguous_format

    def _laid_out(self, a, form):
        return a.contiguous(memory_format=form)

    def _back(self, y, form):
        return y

    def _of_weight(self, w, form):
        return w

    def _to_weight(self, g, saved, k):
        return g.to(saved["weights"][k][1])

    def _sizes(self, x):
        return x.shape[0], x.shape[1], math.prod(x.shape[2:]), self.groups

    def _normalise(self, x, gamma, beta):
        return torch.native_group_norm(x, gamma, beta, *self._sizes(x), self.eps)

    def _pull(self, saved, d, gamma, mask):
        """N(γ·d), Σ d·x̂ and Σ d, those that ``mask`` asks for."""
        x = saved["x"]
        return aten.native_group_norm_backward(d, x, saved["mean"], saved["r"], gamma, *self._sizes(x), mask)

    def _wide(self, gamma, x):
        """γ against x."""
        return gamma.view(-1, *[1] * (x.dim() - 2))

    def _mean(self, a, b=None):
        """Mean of a, or of a·b, over each group: [B, groups]."""
        batch, channels, pixels, groups = self._sizes(a)
        a = a if b is None else a * b  # a matrix product would spare it, but its threads cost more on a CPU
        a = a.sum(list(range(2, a.dim()))) if a.dim() > 2 else a
        return a.view(batch, groups, -1).sum(2) / (channels // groups * pixels)

    def _spread(self, c, x):
        """A number for each group against x."""
        c = c if c.shape[1] == 1 else c.repeat_interleave(x.shape[1] // c.shape[1], 1)
        return c.view(*c.shape, *[1] * (x.dim() - 2))

    def _sum(self, a):
        """Of each channel."""
        return a.sum([0, *range(2, a.dim())])


class InstanceNorm(GroupNorm):
    """A group for each channel."""

    def __init__(self, weight, bias, eps):
        super().__init__(weight, bias, eps, None)

    def _sizes(self, x):
        return x.shape[0], x.shape[1], math.prod(x.shape[2:]), x.shape[1]


class LayerNorm(Norm):
    """Over the last dimensions, as rows in the order of memory [B, groups, m]: channels_last where all are meant.

    The weights are brought into that order once a pass.
    """

    def __init__(self, weight, bias, eps, shape):
        super().__init__(weight, bias, eps)
        self.shape = tuple(shape)

    def _form(self, x):
        """(order of the dimensions in memory, their sizes, groups)."""
        shape = self.shape
        if x.dim() <= len(shape) or x.shape[-len(shape) :] != shape:
            raise ValueError(f"critic: LayerNorm over {shape} got {tuple(x.shape)}, needs (batch, ..., *{shape})")
        groups = math.prod(x.shape[1 : x.dim() - len(shape)])
        last = len(shape) == 3 and is_channels_last(x)
        order = (0, 2, 3, 1) if last else tuple(range(x.dim()))
        return order, [x.shape[i] for i in order[1:]], groups

    def _laid_out(self, a, form):
        order, _, groups = form
        a = a if _is_plain(order) else a.permute(order)
        return a.reshape(a.shape[0], groups, -1)

    def _back(self, y, form):
        order, sizes, _ = form
        y = y.view(y.shape[0], *sizes)
        return y if _is_plain(order) else y.permute(_inverse(order))

    def _of_weight(self, w, form):
        return w.reshape(-1) if _is_plain(form[0]) else w.permute(self._order(form)).reshape(-1)

    def _to_weight(self, g, saved, k):
        shape, dtype = saved["weights"][k]
        if _is_plain(saved["form"][0]):
            return g.view(shape).to(dtype)
        order = self._order(saved["form"])
        return g.view([shape[i] for i in order]).permute(_inverse(order)).to(dtype)

    def _order(self, form):
        """Of the weights' dimensions."""
        left_out = len(form[0]) - len(self.shape)
        return [i - left_out for i in form[0][left_out:]]

    def _normalise(self, x, gamma, beta):
        return torch.native_layer_norm(x, x.shape[2:], gamma, beta, self.eps)

    def _pull(self, saved, d, gamma, mask):
        x = saved["x"]
        beta = gamma if mask[2] else None  # only its being there matters
        return aten.native_layer_norm_backward(d, x, x.shape[2:], saved["mean"], saved["r"], gamma, beta, mask)

    def _wide(self, gamma, x):
        return gamma

    def _mean(self, a, b=None):
        return (a if b is None else a * b).mean(2, keepdim=True)

    def _spread(self, c, x):
        return c

    def _sum(self, a):
        return a.sum([0, 1])


def _is_plain(order) -> bool:
    """Whether the dimensions lie in memory as they are named."""
    return order == tuple(range(len(order)))


def _inverse(order):
    return (0, 3, 1, 2) if order == (0, 2, 3, 1) else [order.index(i) for i in range(len(order))]
