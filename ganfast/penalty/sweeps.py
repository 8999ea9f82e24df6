"""The four sweeps over a critic's calls: forward, reverse, tangent and adjoint (docs/gradient_penalty.md).

    forward   x_{l+1} = f_l(x_l), call by call, as the critic's code makes them (recorder.py)
    reverse   d_l = J_lᵀ d_{l+1}, d at the top given; d_0 = g
    tangent   t_{l+1} = J_l t_l from t_0 = v, of each weight ∂/∂w (d·J t), of each curved call ∂/∂x (d·J t)
    adjoint   p_l = J_lᵀ p_{l+1} + ∂/∂x (d·J t), and of each weight (∂f/∂w)ᵀp; skipped where no call is curved

Everything here is first-order code on plain tensors; no autograd graph is made, but for an :class:`Island`.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ganfast.penalty.layers import Affine, Conv, LeakyReLU
from ganfast.penalty.rules import Island, NotMergedError, Rule

CONSTANT = -1  # the number of what is no function of x, nor of a weight


def autocast_dtype(device: torch.device):
    """The dtype of autocast where it is on, else None."""
    if not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


@dataclass(slots=True)
class Node:
    """y = rule(inputs): numbers of values; 0 is x. ``line``: where the critic's code makes the call."""

    rule: Rule
    inputs: list
    output: int
    weights: tuple
    saved: object
    line: object = None


class _Held(Rule):
    """A parameter that a call without weights of its own meets, such as a gain."""

    merges = True

    def __init__(self, tensor):
        self.tensor = tensor

    def weights(self):
        return (self.tensor,)

    def forward(self, run, values, weights, overwrite):
        return weights[0], None

    def adjoint(self, saved, p, need, below=True):
        return (), (p,)


class Tape:
    """One pass through a critic and what it leaves for the sweeps. Rows from ``start`` on are those of the penalty.

    ``start`` > 0 is a merged step: the rows before are those of the loss, half of real and half of fake.
    """

    def __init__(self, x: Tensor, start: int = 0):
        self.nodes, self.start, self.device, self.batch = [], start, x.device, x.shape[:1]
        self.of_x, self.live, self.held = {0}, {0}, {}
        self.count = 1
        self.output = None
        self.bents = {}

    # --- forward ------------------------------------------------------------------------------------------------------

    def call(self, rule: Rule, inputs: list, values: list, overwrite=False, line=None):
        """(y, its number): the values are plain tensors."""
        if self.start and not rule.merges:
            raise NotMergedError(f"{type(rule).__name__} lets samples see each other, or has no rows")
        weights = rule.weights()
        self.dtype = autocast_dtype(self.device)
        self.samples = [i in self.of_x for i in inputs]
        self.active = [i in self.live for i in inputs]
        given = [w.detach() for w in weights]
        if self.dtype is None:
            y, saved = rule.forward(self, values, given, overwrite)
        else:  # the rules cast by themselves
            with torch.autocast(self.device.type, enabled=False):
                y, saved = rule.forward(self, values, given, overwrite)
        if self.start and any(self.samples) and y.shape[:1] != self.batch:
            raise NotMergedError("a tensor in it has other rows than the samples")
        return y, self.add(rule, inputs, weights, saved, line)

    def add(self, rule, inputs, weights=(), saved=None, line=None) -> int:
        """A call that was made already; its number."""
        n = self.count
        self.nodes.append(Node(rule, inputs, n, weights, saved, line))
        self.count += 1
        if any(i in self.of_x for i in inputs):
            self.of_x.add(n)
        if any(i in self.live for i in inputs) or any(w.requires_grad for w in weights):
            self.live.add(n)
        return n

    def hold(self, tensor: Tensor) -> int:
        """The number of a parameter."""
        if id(tensor) not in self.held:
            self.held[id(tensor)] = self.add(_Held(tensor), [], (tensor,))
        return self.held[id(tensor)]

    def close(self, output: int):
        """The pass ends in that value; CONSTANT where the scores do not depend on x."""
        self.output = output
        self.curved = any(node.rule.curved for node in self.nodes)
        self.flat = self.start > 0 and not self.curved and not self.held  # one sweep serves all rows
        readers = {}
        for node in self.nodes:
            for i in node.inputs:
                readers.setdefault(i, []).append(node.rule)
        for node in self.nodes:
            if isinstance(node.rule, LeakyReLU):
                read = readers.get(node.output, [])
                node.rule.spends = len(read) == 1 and isinstance(read[0], Affine) and node.output != output

    @property
    def islands(self) -> bool:
        """Whether a part of the critic takes double backward."""
        return any(isinstance(node.rule, Island) for node in self.nodes)

    @property
    def convolves(self) -> bool:
        return any(isinstance(node.rule, Conv) for node in self.nodes)

    def signature(self) -> str:
        """What its time depends on: the calls, what they read, the shapes of their weights."""
        calls = [(type(node.rule).__name__, node.inputs, [tuple(w.shape) for w in node.weights]) for node in self.nodes]
        return hashlib.sha256(repr(calls).encode()).hexdigest()[:16]

    def weights(self) -> list:
        """All weights, call by call."""
        return [w for node in self.nodes for w in node.weights]

    # --- reverse, tangent, adjoint ------------------------------------------------------------------------------------

    def reverse(self, seed: Tensor) -> Tensor | None:
        """d at every call, from that of the result; returns that of the rows of the penalty at x, None where it is 0.

        The seed of a merged step: where the critic is flat, of all rows, else of those of the penalty.
        """
        first = 0 if self.flat else self.start
        d, self.d, self.met = {self.output: seed}, {}, set()
        del seed
        for n in reversed(range(len(self.nodes))):
            node = self.nodes[n]
            got = d.pop(node.output, None)
            if got is None or node.output not in self.of_x:
                continue
            self.met.add(n)
            if node.rule.curved or node.weights:
                self.d[n] = got
            at = self.start if node.inputs == [0] else first
            got = got[at - first :] if at > first else got
            for i, di in zip(node.inputs, node.rule.vjp(self._last(node, at), got)):
                if i in self.of_x and di is not None:
                    _add(d, i, di[self.start - at :] if i == 0 else di)
        return d.get(0)

    def _last(self, node, start):
        return node.rule.last(node.saved, start)

    def tangent(self, v: Tensor, need: list):
        """From t = v at x: the weights' gradients that need no adjoint sweep. ``need[n]``: which weights of a call."""
        over = self.flat  # nothing comes back here
        self.gradients, self.bents = [[None] * len(node.weights) for node in self.nodes], {}
        t = {0: v}
        last = {i: n for n, node in enumerate(self.nodes) for i in node.inputs}
        for n, node in enumerate(self.nodes):
            if n not in self.met:
                continue
            rule, d, ts = node.rule, self.d.get(n), [t.get(i) for i in node.inputs]
            if any(x is not None for x in ts):
                saved = self._last(node, self.start)
                t[node.output] = (rule.jvp_over if over else rule.jvp)(saved, ts)
                if over and node.weights:
                    self._gain(n, rule.cross_over(node.saved, d, ts, need[n], self.start))
                elif node.weights or rule.curved:
                    self._gain(n, rule.cross(saved, d, ts, need[n]))
                if rule.curved:
                    self.bents[n] = rule.bent(saved, d, ts)
            if over:
                node.saved = None
            elif self.start:
                rule.forget(node.saved)
            if self.start:
                self.d.pop(n, None)
            d = saved = None
            for i in node.inputs:
                if last[i] == n:
                    t.pop(i, None)

    def adjoint(self, need: list, at_x: bool = False, seed=None):
        """The rest of the weights' gradients; returns ∂P/∂x by way of the curved calls, None where it is zero.

        ``seed`` is that of the rows before ``start``: a merged step, after which nothing is kept.
        """
        p = {} if seed is None else {self.output: seed}
        for n in reversed(range(len(self.nodes))):
            node = self.nodes[n]
            got, bent = p.pop(node.output, None), self.bents.pop(n, [None] * len(node.inputs))
            below = [i in self.live and (i > 0 or at_x) for i in node.inputs]
            dx = [None] * len(node.inputs)
            if got is not None:
                saved = node.rule.first(node.saved, got, self.start) if node.output in self.of_x else node.saved
                dx, dw = node.rule.adjoint(saved, got, need[n], any(below))
                self._gain(n, dw)
            for i, wanted, *parts in zip(node.inputs, below, dx, bent):
                if wanted:
                    self._lead_on(p, i, *parts)
            got = dx = saved = bent = parts = None
            if seed is not None:
                node.saved = None
        return p.get(0)

    def _lead_on(self, p, i, dx, bent):
        """Jᵀp of the first rows plus the second-order term of those from ``start`` on; dx is overwritten."""
        if dx is not None and bent is not None and i in self.of_x:
            if self.start and len(dx) == self.start:
                dx, bent = torch.cat([dx, bent]), None
            else:
                dx[self.start :] += bent
                bent = None
        for part in (dx, bent):
            if part is not None:
                _add(p, i, part)

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
