"""The four sweeps over a critic's program: forward, reverse, tangent and adjoint (docs/gradient_penalty.md).

    forward   x_{l+1} = f_l(x_l)
    reverse   d_l = J_lᵀ d_{l+1}, d at the top given; d_0 = g
    tangent   t_{l+1} = J_l t_l from t_0 = v, and of each weight ∂/∂w (d·J t)
    adjoint   p_l = J_lᵀ p_{l+1} + ∂/∂x (d·J t), and of each weight (∂f/∂w)ᵀp; skipped where no layer is curved

Everything here is first-order code on plain tensors; no autograd graph is made, but by :class:`Differentiable`.
"""

import contextlib

import torch
from torch import Tensor

from ganfast.penalty.program import Program


def autocast_dtype(device: torch.device):
    """The dtype of autocast where it is on, else None."""
    if not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


class Run:
    """One pass through a critic and what it leaves for the sweeps. Rows from ``start`` on are those of the penalty."""

    def __init__(self, program: Program, weights: list, dtype, start: int = 0):
        self.program, self.weights, self.dtype, self.start = program, weights, dtype, start
        self.active = ()
        self.saved, self.d, self.t = {}, {}, {}
        self.gradients = [[None] * len(w) for w in weights]

    def autocast(self):
        """For code of torch's own; the engine casts by itself."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def forward(self, *arguments: Tensor):
        """The critic's result. ``arguments`` after the first are constants."""
        self.device = arguments[0].device
        values = dict(enumerate(arguments))
        of_x, live = {0}, {0}
        last = {i: n for n, node in enumerate(self.program.nodes) for i in node.inputs}
        for n, node in enumerate(self.program.nodes):
            given = [values[i] for i in node.inputs]
            self.active = [i in live for i in node.inputs]
            y, self.saved[n] = node.rule.forward(self, given, self.weights[n], node.overwrite)
            values[node.output] = y
            if isinstance(y, Tensor) and y.is_floating_point() and not node.rule.constant:
                if any(i in of_x for i in node.inputs):
                    of_x.add(node.output)
                if self.weights[n] or any(self.active):
                    live.add(node.output)
            for i in set(node.inputs):
                if last[i] == n and not self._is_result(i):
                    del values[i]
        self.of_x, self.live = of_x, live
        output = self.program.output
        return values[output] if isinstance(output, int) else tuple(values[i] for i in output)

    def _is_result(self, i):
        output = self.program.output
        return i == output if isinstance(output, int) else i in output

    def reverse(self, seed) -> Tensor:
        """d at every call, from that of the result; returns that of the rows of the penalty at x."""
        d, self.met = {}, set()
        for i, s in zip(*self._results(seed)):
            _add(d, i, s)
        del seed
        for n in reversed(range(len(self.program.nodes))):
            node = self.program.nodes[n]
            got = d.pop(node.output, None)
            if got is None or not any(i in self.of_x for i in node.inputs):
                continue
            self.met.add(n)
            if node.rule.curved or self.weights[n]:
                self.d[n] = got
            start = self.start if node.rule.trims and node.inputs == [0] else 0
            for i, di in zip(node.inputs, node.rule.vjp(self.saved[n], got, start)):
                if i in self.of_x and di is not None:
                    _add(d, i, di[self.start :] if i == 0 and not start else di)
        return d.get(0)

    def _results(self, seed):
        output = self.program.output
        return ([output], [seed]) if isinstance(output, int) else (output, seed)

    def begin(self):
        """Forget the gradients of an earlier backward."""
        self.t, self.gradients = {}, [[None] * len(w) for w in self.weights]

    def tangent(self, v: Tensor, need: list):
        """From t = v at x: the weights' gradients that need no adjoint sweep. ``need[n]``: which weights of a call."""
        t = {0: v}
        last = {i: n for n, node in enumerate(self.program.nodes) for i in node.inputs}
        for n, node in enumerate(self.program.nodes):
            if n not in self.met:
                continue
            d = self.d.get(n)
            ts = [t.get(i) for i in node.inputs]
            if any(x is not None for x in ts):
                t[node.output] = node.rule.jvp(self.saved[n], ts, self.start)
                self._gain(n, node.rule.cross(self.saved[n], d, ts, need[n], self.start))
            if node.rule.curved:
                self.t[n] = ts
            if self.program.flat and self.start:  # a merged step: nothing comes back here
                del self.saved[n]
                self.d.pop(n, None)
                del d
            for i in node.inputs:
                if last[i] == n:
                    t.pop(i, None)

    def adjoint(self, need: list, at_x: bool = False):
        """The rest of the weights' gradients; returns ∂P/∂x by way of the curved layers, None where it is zero."""
        p = {}
        for n in reversed(range(len(self.program.nodes))):
            node = self.program.nodes[n]
            got = p.pop(node.output, None)
            ts = self.t.get(n)
            bends = ts is not None and any(x is not None for x in ts)
            if got is None and not bends:
                continue
            ts = ts if ts is not None else [None] * len(node.inputs)
            dx, dw = node.rule.adjoint(self.saved[n], got, self.d.get(n), ts, need[n])
            self._gain(n, dw)
            for i, pi in zip(node.inputs, dx):
                if pi is not None and i in self.live and (i or at_x):
                    _add(p, i, pi)
        return p.get(0)

    def _gain(self, n, dw):
        mine = self.gradients[n]
        for k, g in enumerate(dw):
            if g is not None:
                mine[k] = g if mine[k] is None else mine[k] + g


def _add(sums, i, x):
    sums[i] = sums[i] + x if i in sums else x
