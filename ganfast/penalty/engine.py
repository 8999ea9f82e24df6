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
from ganfast.penalty.rules import MixedRowsError


def autocast_dtype(device: torch.device):
    """The dtype of autocast where it is on, else None."""
    if not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


class Run:
    """One pass through a critic and what it leaves for the sweeps. Rows from ``start`` on are those of the penalty.

    ``start`` > 0 is a merged step: the rows before are those of the loss.
    """

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
        x = arguments[0]
        self.device = x.device
        if self.program.channels_last and x.device.type == "cpu" and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)  # no layer brings it into another order then
        values = dict(enumerate((x, *arguments[1:])))
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
                    if self.start and y.shape[:1] != x.shape[:1]:
                        raise MixedRowsError
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

    def _rows(self, n, start):
        """What is saved of a call, of the rows from ``start`` on."""
        return self.program.nodes[n].rule.last(self.saved[n], start)

    def reverse(self, seed) -> Tensor:
        """d at every call, from that of the result; returns that of the rows of the penalty at x.

        The seed of a merged step: where the critic is flat, of all rows, else of those of the penalty.
        """
        first = 0 if self.program.flat else self.start
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
            at = self.start if node.inputs == [0] else first
            got = got[at - first :] if at > first else got
            for i, di in zip(node.inputs, node.rule.vjp(self._rows(n, at), got)):
                if i in self.of_x and di is not None:
                    _add(d, i, di[self.start - at :] if i == 0 else di)
        return d.get(0)

    def _results(self, seed):
        output = self.program.output
        return ([output], [seed]) if isinstance(output, int) else (output, seed)

    def begin(self):
        """Forget the gradients of an earlier backward."""
        self.t, self.gradients = {}, [[None] * len(w) for w in self.weights]

    def tangent(self, v: Tensor, need: list):
        """From t = v at x: the weights' gradients that need no adjoint sweep. ``need[n]``: which weights of a call."""
        over = self.start and self.program.flat  # a merged step: nothing comes back here
        t = {0: v}
        last = {i: n for n, node in enumerate(self.program.nodes) for i in node.inputs}
        for n, node in enumerate(self.program.nodes):
            if n not in self.met:
                continue
            rule, d, ts = node.rule, self.d.get(n), [t.get(i) for i in node.inputs]
            if any(x is not None for x in ts):
                saved = self._rows(n, self.start)
                t[node.output] = (rule.jvp_over if over else rule.jvp)(saved, ts)
                if self.weights[n]:
                    all_rows = self.saved[n], d, ts, need[n], self.start
                    self._gain(n, rule.cross_over(*all_rows) if over else rule.cross(saved, d, ts, need[n]))
            if rule.curved:
                self.t[n] = ts
            if over:
                del self.saved[n]
                self.d.pop(n, None)
            elif self.start and not rule.curved:
                self.d.pop(n, None)
            d = saved = all_rows = None
            for i in node.inputs:
                if last[i] == n:
                    t.pop(i, None)

    def adjoint(self, need: list, at_x: bool = False, seed=None):
        """The rest of the weights' gradients; returns ∂P/∂x by way of the curved layers, None where it is zero.

        ``seed`` is that of the rows before ``start``: a merged step, after which nothing is kept.
        """
        p = {} if seed is None else {self.program.output: seed}
        for n in reversed(range(len(self.program.nodes))):
            node = self.program.nodes[n]
            got, ts = p.pop(node.output, None), self.t.get(n)
            bends = ts is not None and any(x is not None for x in ts)
            if got is not None or bends:
                ts = ts if ts is not None else [None] * len(node.inputs)
                below = [i in self.live and (i > 0 or at_x) for i in node.inputs]
                dx, dw = node.rule.adjoint(
                    self.saved[n], got, self.d.get(n), ts, need[n], start=self.start, below=any(below)
                )
                self._gain(n, dw)
                for i, wanted, pi in zip(node.inputs, below, dx):
                    if wanted and pi is not None:
                        _add(p, i, pi)
                dx = pi = None
            if seed is not None:
                del self.saved[n]
                self.d.pop(n, None), self.t.pop(n, None)
        return p.get(0)

    def _gain(self, n, dw):
        mine = self.gradients[n]
        for k, g in enumerate(dw):
            if g is not None:
                mine[k] = g if mine[k] is None else mine[k] + g


def _add(sums, i, x):
    """Also a sum of all rows and one of the first."""
    if i not in sums:
        sums[i] = x
        return
    if sums[i].shape == x.shape:
        sums[i] = sums[i] + x
        return
    some, more = (sums[i], x) if sums[i].shape[0] < x.shape[0] else (x, sums[i])
    rows = some.shape[0]
    sums[i] = torch.cat([more[:rows] + some, more[rows:]])
