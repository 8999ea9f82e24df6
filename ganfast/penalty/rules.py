"""What a layer tells the engine: a :class:`Rule`, the three general kinds of it, and the table by layer."""

import torch
from torch import nn

TABLE: dict = {}  # type of module → function of the module that gives its rules, to be run one after another


class NoRuleError(Exception):
    """The layer that has no rule, in words."""


class MixedRowsError(Exception):
    """The result of a call has other rows than the samples: several batches cannot go as one."""


class Rule:
    """One call y = f(x_1, …, x_k; w) in a critic. A rule keeps nothing of a run; ``forward`` gives what is ``saved``.

    d = ∂ΣD/∂y, t = the tangent of an x, p = the cotangent of y in the last sweep. A list for the inputs has None where
    there is nothing. A merged step runs several batches as one: then some sweeps take a part of the rows.

    curved   f bends in x: ``adjoint`` has a second-order term
    merges   rows are treated alike and apart, and ``rows`` is there: one call may serve several batches
    fresh    y is a new tensor that the rule does not keep, so that an activation may overwrite it
    constant y is no function of x to be derived: it depends on its shape, or is detached
    """

    curved, merges, fresh, constant = False, False, False, False

    def weights(self):
        """The tensors w, read once a run; they may be the results of a parametrization."""
        return ()

    def forward(self, run, values, weights, overwrite):
        """(y, saved). ``overwrite``: values[0] may be; ``run.active`` says which of the values depend on x."""
        raise NotImplementedError

    def rows(self, saved, rows: slice):
        """What is saved of some rows, in the same memory. Only rules that merge are asked, in a merged step."""
        return saved

    def first(self, saved, p, start):
        """What is saved of the rows of p."""
        return self.rows(saved, slice(p.shape[0])) if start else saved

    def last(self, saved, start):
        """What is saved of the rows from ``start`` on."""
        return self.rows(saved, slice(start, None)) if start else saved

    def vjp(self, saved, d):
        """Of each input Jᵀd."""
        raise NotImplementedError

    def jvp(self, saved, ts):
        """Σ J_i t_i."""
        raise NotImplementedError

    def jvp_over(self, saved, ts):
        """:meth:`jvp` that may overwrite what is saved."""
        return self.jvp(saved, ts)

    def cross(self, saved, d, ts, need):
        """Of each weight ∂/∂w (d·J t), after ``jvp``; a rule may leave it to ``adjoint``."""
        return ()

    def cross_over(self, saved, d, ts, need, start):
        """:meth:`cross` of the rows from ``start`` on, plus (∂f/∂w)ᵀd of those before; may overwrite what is saved."""
        mine = self.cross(self.last(saved, start), d[start:], ts, need)
        _, others = self.adjoint(saved, d[:start], None, [None] * len(ts), need, start, below=False)
        return [b if a is None else a if b is None else a + b for a, b in zip(mine, others)]

    def adjoint(self, saved, p, d, ts, need, start=0, below=True):
        """Of each input Jᵀp, of each weight (∂f/∂w)ᵀp. Curved: + ∂/∂x (d·J t) in the rows from ``start`` on.

        ``saved`` is of all rows, p of the first ones (None: 0), d and t of those from ``start`` on. Where ``below`` is
        False, no input's is asked for.
        """
        return self.vjp(self.first(saved, p, start), p), ()


def joined(dx, bent, start):
    """Jᵀp of the first rows plus the second-order term of those from ``start`` on; dx is overwritten."""
    if bent is None or dx is None:
        return bent if dx is None else dx
    if not start:
        return dx.add_(bent)
    if dx.shape[0] == start:
        return torch.cat([dx, bent])
    dx[start:] += bent
    return dx


class Elementwise(Rule):
    """y = f(x), a smooth function of each element: ``value(x)``, ``slope(x, y)`` = f', ``bend(x, y)`` = f''."""

    curved = merges = True

    def __init__(self, module=None):
        self.module = module

    def forward(self, run, values, weights, overwrite):
        (x,) = values
        y = self.value(x)
        return y, (x, y)

    def rows(self, saved, rows):
        return saved[0][rows], saved[1][rows]

    def vjp(self, saved, d):
        return (d * self.slope(*saved),)

    def jvp(self, saved, ts):
        return ts[0] * self.slope(*saved)

    def adjoint(self, saved, p, d, ts, need, start=0, below=True):
        bent = None if ts[0] is None else d * ts[0] * self.bend(*self.last(saved, start))
        dx = None if p is None else p * self.slope(*self.first(saved, p, start))
        return (joined(dx, bent, start),), ()


def form_of(x):
    """What :func:`like` needs of x."""
    return x.shape, x.stride(), x.dtype, x.device


def form_rows(form, rows: slice):
    """The form of some rows."""
    shape = form[0]
    return (len(range(*rows.indices(shape[0]))), *shape[1:]), *form[1:]


def like(form):
    """A tensor of that shape and order in memory, its numbers of no matter."""
    return torch.empty_strided(form[0], form[1], dtype=form[2], device=form[3])


def _without_part(v):
    """What stands beside x, such as a map of labels, has no part in a derivative."""
    return torch.zeros_like(v) if isinstance(v, torch.Tensor) else v


class LinearMap(Rule):
    """y = f(x_1, …), linear and without weights: f tells everything."""

    def __init__(self, function, merges=True):
        self.function, self.merges = function, merges

    def forward(self, run, values, weights, overwrite):
        saved = [form_of(v) if a else _without_part(v) for v, a in zip(values, run.active)]
        return self.function(*values), (saved, run.active)

    def rows(self, saved, rows):
        return [form_rows(s, rows) if a else s for s, a in zip(*saved)], saved[1]

    def _of_active(self, saved, active):
        constants = [None if a else s for s, a in zip(saved, active)]

        def function(*xs):
            xs = iter(xs)
            return self.function(*(next(xs) if a else c for c, a in zip(constants, active)))

        return function

    def vjp(self, saved, d):
        saved, active = saved
        anything = [like(s) for s, a in zip(saved, active) if a]
        _, pull = torch.func.vjp(self._of_active(saved, active), *anything)
        pulled = iter(pull(d))
        return [next(pulled) if a else None for a in active]

    def jvp(self, saved, ts):
        saved, active = saved
        given = [like(s).zero_() if t is None else t for s, t, a in zip(saved, ts, active) if a]
        return self._of_active(saved, active)(*given)


class Differentiable(Rule):
    """Any function that torch differentiates twice: double backward, of this one call.

    ``function(*values, *weights)``; ``module``: its parameters are the weights and it is called with ``values``.
    ``in_place``: whether the function writes over its first value.
    """

    curved = True

    def __init__(self, function=None, module=None, in_place=False):
        self.module, self.in_place = module, in_place or getattr(module, "inplace", False) is True
        self.function = self._call_module if function is None else function

    def _names(self):
        return [name for name, _ in self.module.named_parameters()]

    def weights(self):
        return () if self.module is None else tuple(self.module.parameters())

    def _call_module(self, *args):
        names = self._names()
        split = len(args) - len(names)
        return torch.func.functional_call(self.module, dict(zip(names, args[split:])), args[:split])

    def forward(self, run, values, weights, overwrite):
        with torch.enable_grad(), run.autocast():
            leaves = [v.detach().requires_grad_() if a else v for v, a in zip(values, run.active)]
            weights = [w.detach().requires_grad_(w.is_floating_point()) for w in weights]
            given = [leaves[0].clone(), *leaves[1:]] if self.in_place else leaves
            y = self.function(*given, *weights)
        saved = {"x": leaves, "active": run.active, "w": weights, "y": y}
        if isinstance(y, (tuple, list)) and any(isinstance(part, torch.Tensor) for part in y):
            raise TypeError("critic: a call in it returns several tensors, needs one for each call")
        return (y.detach() if isinstance(y, torch.Tensor) else y), saved

    def _xs(self, saved):
        return [x for x, a in zip(saved["x"], saved["active"]) if a]

    def _spread(self, saved, given):
        given = iter(given)
        return [next(given) if a else None for a in saved["active"]]

    def vjp(self, saved, d):
        with torch.enable_grad():
            saved["d"] = d.detach().requires_grad_()
            saved["g"] = _grad([saved["y"]], self._xs(saved), [saved["d"]], create_graph=True)
        return self._spread(saved, [None if g is None else g.detach() for g in saved["g"]])

    def jvp(self, saved, ts):
        pairs = self._pairs(saved, ts)
        if not pairs:
            return None
        gs, ts = zip(*pairs)
        (t,) = _grad(gs, [saved["d"]], ts)
        return t

    def _pairs(self, saved, ts):
        given = [t for t, a in zip(ts, saved["active"]) if a]
        pairs = zip(saved.get("g", ()), given)
        return [(g, t) for g, t in pairs if g is not None and t is not None and g.requires_grad]

    def adjoint(self, saved, p, d, ts, need, start=0, below=True):
        pairs = self._pairs(saved, ts)
        if p is not None:
            pairs.append((saved["y"], p))
        xs, ws = self._xs(saved), [w for w, n in zip(saved["w"], need) if n]
        if not pairs or not xs + ws:
            return [None] * len(saved["x"]), [None] * len(need)
        found = _grad([a for a, _ in pairs], xs + ws, [b for _, b in pairs])
        dw = iter(found[len(xs) :])
        return self._spread(saved, found[: len(xs)]), [next(dw) if n else None for n in need]


class Constant(Differentiable):
    """A tensor of zeros or ones, a detached one."""

    constant, curved = True, False

    def forward(self, run, values, weights, overwrite):
        return self.function(*values), None


class Size(Constant):
    """A shape, a size, a number made of them."""

    merges = True


def _grad(outputs, inputs, cotangents, create_graph=False):
    """torch.autograd.grad, the graph kept, None for what an output does not depend on."""
    if not inputs:
        return ()
    return torch.autograd.grad(
        outputs, inputs, cotangents, retain_graph=True, create_graph=create_graph, allow_unused=True
    )


def register(layer: type[nn.Module], rule=None) -> None:
    """Name the rule of a layer, for every critic from now on.

    layer    a subclass of ``torch.nn.Module``; subclasses of it are not meant
    rule     a function of the module that gives its :class:`Rule` (a class that takes the module is one), or None for
             a layer that torch can differentiate twice: :class:`Differentiable`

    Raises TypeError for what is not a layer.
    """
    if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
        raise TypeError(f"layer: got {layer!r}, needs a subclass of torch.nn.Module")
    TABLE[layer] = rule or (lambda module: Differentiable(module=module))
