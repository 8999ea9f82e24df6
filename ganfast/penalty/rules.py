"""What a call tells the sweeps: a :class:`Rule`, the general kinds of it, and the rules of layers of one's own."""

import itertools

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge

REGISTERED: dict = {}  # type of module → function of the module that gives its rule


class NoRuleError(Exception):
    """Why the sweeps cannot take a critic, in words."""


class NotMergedError(Exception):
    """Why real, fake and x̂ cannot go through a critic as one batch, in words."""


class Rule:
    """One call y = f(x_1, …, x_k; w) in a critic, made anew for each; ``forward`` gives what is ``saved``.

    d = ∂ΣD/∂y, t = the tangent of an x, p = the cotangent of y in the last sweep. A list for the inputs has None where
    there is nothing. A merged step runs several batches as one: then some sweeps take a part of the rows.

    curved   f bends in x: ``bent`` is its second-order term
    merges   rows are treated alike and apart, and ``rows`` is there: one call may serve several batches
    fresh    y is a new tensor that the rule does not keep, so that an activation may overwrite it
    views    y may share the memory of x, as torch's views do
    """

    curved, merges, fresh, views = False, False, False, False

    def weights(self):
        """The tensors w; they may be the results of a parametrization."""
        return ()

    def forward(self, run, values, weights, overwrite):
        """(y, saved). ``overwrite``: values[0] may be; ``run.active`` says which of the values depend on x or on w."""
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
        """Of each weight ∂/∂w (d·J t), after ``jvp``."""
        return ()

    def cross_over(self, saved, d, ts, need, start):
        """:meth:`cross` of the rows from ``start`` on, plus (∂f/∂w)ᵀd of those before; may overwrite what is saved."""
        mine = self.cross(self.last(saved, start), d[start:], ts, need)
        _, others = self.adjoint(self.first(saved, d[:start], start), d[:start], need, below=False)
        return [b if a is None else a if b is None else a + b for a, b in itertools.zip_longest(mine, others)]

    def bent(self, saved, d, ts):
        """Of each input ∂/∂x (d·J t), after ``jvp`` and ``cross``; only of rules that are curved."""
        raise NotImplementedError

    def forget(self, saved):
        """What the sweeps have put to what is saved, for ``bent``: it was called."""

    def adjoint(self, saved, p, need, below=True):
        """Of each input Jᵀp, of each weight (∂f/∂w)ᵀp. Where ``below`` is False, no input's is asked for."""
        return self.vjp(saved, p), ()


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

    def pull(self, d, x, y):
        """d·f'(x)."""
        return d * self.slope(x, y)

    def vjp(self, saved, d):
        return (self.pull(d, *saved),)

    def jvp(self, saved, ts):
        return self.pull(ts[0], *saved)

    def bent(self, saved, d, ts):
        return ((d * ts[0]).mul_(self.bend(*saved)),)


def form_of(x):
    """What :func:`like` needs of x."""
    return x.shape, x.stride(), x.dtype, x.device


def form_rows(form, rows: slice):
    """The form of some rows."""
    shape = form[0]
    return (len(range(*rows.indices(shape[0]))), *shape[1:]), *form[1:]


def summed(d, shape):
    """d of what was broadcast, of the shape it had."""
    return d if d.shape == shape else d.sum_to_size(shape)


def is_channels_last(x) -> bool:
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def like(form):
    """A tensor of that shape and order in memory, its numbers of no matter."""
    return torch.empty_strided(form[0], form[1], dtype=form[2], device=form[3])


class LinearMap(Rule):
    """y = f(x_1, …) + constants, linear and without weights: f tells everything.

    What stands beside x, such as a map of labels, has no part in a derivative.
    """

    def __init__(self, function, merges=True):
        self.function, self.merges = function, merges

    def forward(self, run, values, weights, overwrite):
        saved = [form_of(v) if a else torch.zeros_like(v) for v, a in zip(values, run.active)]
        return self.function(*values), (saved, run.active)

    def rows(self, saved, rows):
        return [form_rows(s, rows) if a else s for s, a in zip(*saved)], saved[1]

    def vjp(self, saved, d):
        with torch.enable_grad():
            xs = [like(s).requires_grad_() if a else s for s, a in zip(*saved)]
            y = self.function(*xs)
        pulled = iter(torch.autograd.grad(y, [x for x, a in zip(xs, saved[1]) if a], d.to(y.dtype)))
        return [next(pulled) if a else None for a in saved[1]]

    def jvp(self, saved, ts):
        return self.function(
            *(s if not a else like(s).zero_() if t is None else t for s, t, a in zip(saved[0], ts, saved[1]))
        )


class Island(Rule):
    """Calls without rules, as autograd recorded them: y, a function of leaves ``xs`` and of ``parameters``.

    Double backward, of this part of the critic alone.
    """

    curved = True

    def __init__(self, y, xs, parameters):
        self.y, self.dtype = get_gradient_edge(y), y.dtype  # y itself is the critic's, which may change it in place
        self.xs, self.parameters = xs, parameters
        self.d = self.g = None

    def weights(self):
        return tuple(self.parameters)

    def vjp(self, saved, d):
        with torch.enable_grad():
            self.d = d.detach().to(self.dtype).requires_grad_()
            self.g = _grad([self.y], self.xs, [self.d], create_graph=True)
        return [None if g is None else g.detach() for g in self.g]

    def _pairs(self, ts):
        return [(g, t.to(g.dtype)) for g, t in zip(self.g, ts) if not (g is None or t is None) and g.requires_grad]

    def jvp(self, saved, ts):
        pairs = self._pairs(ts)
        return _grad([g for g, _ in pairs], [self.d], [t for _, t in pairs])[0] if pairs else None

    def cross(self, saved, d, ts, need):
        pairs = self._pairs(ts)
        ws = [w for w, n in zip(self.parameters, need) if n]
        found = [None] * (len(self.xs) + len(ws))
        if pairs:
            found = _grad([g for g, _ in pairs], [*self.xs, *ws], [t for _, t in pairs])
        self.of_xs, of_ws = found[: len(self.xs)], iter(found[len(self.xs) :])
        return [next(of_ws) if n else None for n in need]

    def bent(self, saved, d, ts):
        return self.of_xs

    def adjoint(self, saved, p, need, below=True):
        ws = [w for w, n in zip(self.parameters, need) if n]
        found = _grad([self.y], [*self.xs, *ws], [p.to(self.dtype)])
        dw = iter(found[len(self.xs) :])
        return found[: len(self.xs)], [next(dw) if n else None for n in need]


def _grad(outputs, inputs, cotangents, create_graph=False):
    """torch.autograd.grad, the graph kept, None for what an output does not depend on."""
    if not inputs:
        return ()
    return torch.autograd.grad(
        outputs, inputs, cotangents, retain_graph=True, create_graph=create_graph, allow_unused=True
    )


def register(layer: type[nn.Module], rule) -> None:
    """Name the rule of a layer, for every critic from now on.

    layer    a subclass of ``torch.nn.Module`` with one input; subclasses of it are not meant
    rule     a function of the module that gives its :class:`Rule`; a class that takes the module is one

    A layer needs none to be right: what it calls is recorded, and what has no rule takes double backward alone.
    Raises TypeError for what is not a layer.
    """
    if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
        raise TypeError(f"layer: got {layer!r}, needs a subclass of torch.nn.Module")
    REGISTERED[layer] = rule
