"""The rule of BatchNorm: statistics over the batch, real, fake and x̂ each with its own (norms.py has the mathematics).

Here N's backward pass gives mean(x̂·a) and mean(x̂·t) along, as Σ x̂·d; all coefficients are numbers for a channel.
In evaluation it is affine: y = γ·(x − μ)·r + β with constants μ and r.
"""

import math

import torch

from ganfast.penalty.rules import Rule

aten = torch.ops.aten


class BatchNorm(Rule):
    """y = γ·x̂ + β over [B, C, …]; arguments as ``torch.nn.functional.batch_norm``."""

    fresh = merges = True

    def __init__(self, running_mean, running_var, weight, bias, training, momentum, eps):
        self.running = running_mean, running_var
        self.weight, self.bias, self.momentum, self.eps = weight, bias, momentum, eps
        self.curved = self.training = bool(training)

    def weights(self):
        return tuple(w for w in (self.weight, self.bias) if w is not None)

    def forward(self, run, values, weights, overwrite):
        (x,) = values
        given = iter(weights)
        gamma, beta = (None if w is None else next(given) for w in (self.weight, self.bias))
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        gamma, beta = (None if w is None else w.to(wide.dtype) for w in (gamma, beta))
        y, parts = torch.empty_like(wide), []
        for rows in _parts(run, len(x)) if self.training else [slice(0, len(x))]:
            part = wide[rows]
            _, mean, r = aten.native_batch_norm.out(
                part, gamma, beta, *self.running, self.training, self.momentum, self.eps,
                out=y[rows], save_mean=wide.new_empty(0), save_invstd=wide.new_empty(0),
            )  # fmt: skip
            parts.append({"rows": rows, "x": part, "mean": mean, "r": r, "sweep": {}})
        return y.to(x.dtype), (parts, gamma, x.dtype, [w.dtype for w in weights])

    def rows(self, saved, rows):
        parts, *rest = saved
        if not self.training:
            return [{**part, "x": part["x"][rows]} for part in parts], *rest
        first, last, _ = rows.indices(parts[-1]["rows"].stop)
        return [part for part in parts if first <= part["rows"].start and part["rows"].stop <= last], *rest

    def _pull(self, part, d, gamma, mask):
        """N(γ·d), Σ x̂·d and Σ d, those that ``mask`` asks for."""
        return aten.native_batch_norm_backward(
            d.to(part["x"].dtype), part["x"], gamma, *self.running, part["mean"], part["r"],
            self.training, self.eps, mask,
        )  # fmt: skip

    def vjp(self, saved, d):
        ((part,), gamma, dtype, _) = saved
        found, part["sweep"]["xd"], _ = self._pull(part, d, gamma, [True, self.training, False])
        part["sweep"]["Na"] = found if self.training else None
        return (found.to(dtype),)

    def jvp(self, saved, ts):
        ((part,), gamma, dtype, _) = saved
        found, part["sweep"]["xt"], _ = self._pull(part, ts[0], None, [True, self.training, False])
        part["sweep"]["Nt"] = found
        return (found if gamma is None else found * _wide(gamma, found)).to(dtype)

    def cross(self, saved, d, ts, need):
        ((part,), _, _, dtypes) = saved
        sweep = part["sweep"]
        if self.curved or (self.weight is not None and need[0]):
            sweep["dNt"] = (d * sweep["Nt"]).sum([0, *range(2, d.dim())])
        wanted = self.weight is not None and need[0]
        return (sweep["dNt"].to(dtypes[0]),) if wanted else ()

    def bent(self, saved, d, ts):
        ((part,), gamma, dtype, _) = saved
        x, mean, r, sweep = part["x"], part["mean"], part["r"], part["sweep"]
        count = x.shape[0] * math.prod(x.shape[2:])
        of_t, of_a, along = -r * sweep["xt"] / count, -r * sweep["xd"] / count, -r * r * sweep["dNt"] / count
        if gamma is not None:
            of_a, along = of_a * gamma, along * gamma
        found = torch.addcmul(_wide(-along * mean, x), x, _wide(along, x))
        found.addcmul_(sweep["Na"], _wide(of_t, x)).addcmul_(sweep["Nt"], _wide(of_a, x))
        return (found.to(dtype),)

    def forget(self, saved):
        for part in saved[0]:
            part["sweep"].clear()

    def adjoint(self, saved, p, need, below=True):
        parts, gamma, dtype, dtypes = saved
        needs = iter(need)
        mask = [below, *(w is not None and next(needs) for w in (self.weight, self.bias))]
        dx, found, at = torch.empty_like(p) if len(parts) > 1 else None, [], 0
        for part in parts:
            rows = slice(at, at + len(part["x"]))
            d, *of_weights = self._pull(part, p[rows], gamma, mask)
            found.append(of_weights)
            at = rows.stop
            if dx is None or not below:
                dx = d
            else:
                dx[rows] = d
        dw = zip(*found)
        dx = dx.to(dtype) if below else None
        dw = [sum(g) if wanted else None for g, wanted in zip(dw, mask[1:])]
        dw = [g for g, w in zip(dw, (self.weight, self.bias)) if w is not None]
        return (dx,), [None if g is None else g.to(dtype) for g, dtype in zip(dw, dtypes)]


def _parts(run, rows):
    """Real, fake and x̂ in a merged step."""
    third = run.start // 2
    return [slice(0, third), slice(third, run.start), slice(run.start, rows)] if run.start else [slice(0, rows)]


def _wide(c, x):
    """A number for each channel against x."""
    return c.view(-1, *[1] * (x.dim() - 2))
