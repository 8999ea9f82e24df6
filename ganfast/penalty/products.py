"""Rules of products of two tensors that both count, of quotients, and of softmax: an attention is made of them."""

import torch

from ganfast.penalty.rules import NotMergedError, Rule, summed


class _Bilinear(Rule):
    """y = a∘b, linear in each; where only one is a function of x, the other is a parameter."""

    curved = True
    fresh = merges = True

    def forward(self, run, values, weights, overwrite):
        if run.start:
            self._check_rows(run, values)
        kinds = [v.dtype for v in values]
        values = values if run.dtype is None or not self.lowered else [v.to(run.dtype) for v in values]
        y = self.product(*values)
        return y, (list(values), y.shape[:1], kinds)

    lowered = False  # whether autocast lowers it

    def _check_rows(self, run, values):
        """Rows are samples in both, or one is the same for all of them."""
        dims = max(v.dim() for v in values)
        for v, samples in zip(values, run.samples):
            if (v.dim() != dims) if samples else (v.dim() == dims and v.shape[0] != 1):
                raise NotMergedError("a product of tensors whose rows are not the same samples")

    def rows(self, saved, rows):
        values, batch, kinds = saved
        dims = max(v.dim() for v in values)
        return [v[rows] if v.dim() == dims and v.shape[:1] == batch else v for v in values], batch, kinds

    def vjp(self, saved, d):
        (a, b), _, kinds = saved
        d = d.to(a.dtype)
        return self.of_a(d, a, b).to(kinds[0]), self.of_b(d, a, b).to(kinds[1])

    def jvp(self, saved, ts):
        (a, b), _, _ = saved
        parts = []
        if ts[0] is not None:
            parts.append(self.product(ts[0].to(a.dtype), b))
        if ts[1] is not None:
            parts.append(self.product(a, ts[1].to(b.dtype)))
        return parts[0] if len(parts) == 1 else parts[0].add_(parts[1])

    def bent(self, saved, d, ts):
        (a, b), _, kinds = saved
        d = d.to(a.dtype)
        of_a = None if ts[1] is None else self.of_a(d, a, ts[1].to(b.dtype)).to(kinds[0])
        of_b = None if ts[0] is None else self.of_b(d, ts[0].to(a.dtype), b).to(kinds[1])
        return of_a, of_b


class Product(_Bilinear):
    """a·b of elements, broadcast."""

    def product(self, a, b):
        return a * b

    def of_a(self, d, a, b):
        return summed(d * b, a.shape)

    def of_b(self, d, a, b):
        return summed(d * a, b.shape)


class Matmul(_Bilinear):
    """Products of matrices, of stacks of them of one shape."""

    lowered = True

    def product(self, a, b):
        return a @ b

    def of_a(self, d, a, b):
        return summed(d @ b.mT, a.shape)

    def of_b(self, d, a, b):
        return summed(a.mT @ d, b.shape)


class Reciprocal(Rule):
    """1/x."""

    curved = merges = True

    def forward(self, run, values, weights, overwrite):
        y = values[0].reciprocal()
        return y, y

    def rows(self, saved, rows):
        return saved[rows]

    def vjp(self, saved, d):
        return (-d * saved * saved,)

    def jvp(self, saved, ts):
        return -ts[0] * saved * saved

    def bent(self, saved, d, ts):
        return (2 * d * ts[0] * saved**3,)


class Softmax(Rule):
    """y = softmax(x) over a dimension that is not the first; J a = y·(a − Σ y·a).

    ∂/∂x (d·J t) = J(d·t − d·Σ y·t − t·Σ y·d)
    """

    curved = merges = True

    def __init__(self, dim):
        self.dim = dim

    def forward(self, run, values, weights, overwrite):
        dtype = torch.float32 if run.dtype is not None and values[0].dtype != torch.float64 else None
        y = values[0].softmax(self.dim, dtype)
        return y, (y, values[0].dtype)

    def rows(self, saved, rows):
        return saved[0][rows], saved[1]

    def _times(self, y, a):
        return torch.ops.aten._softmax_backward_data(a.to(y.dtype), y, self.dim, y.dtype)

    def vjp(self, saved, d):
        return (self._times(saved[0], d).to(saved[1]),)

    def jvp(self, saved, ts):
        return self._times(saved[0], ts[0])

    def bent(self, saved, d, ts):
        y, t = saved[0], ts[0].to(saved[0].dtype)
        of_t, of_d = ((y * v).sum(self.dim, keepdim=True) for v in (t, d))
        return (self._times(y, d * (t - of_t) - t * of_d).to(saved[1]),)


class LogSoftmax(Rule):
    """y = x − log Σ eˣ over a dimension that is not the first; Jᵀd = d − eʸ·Σ d, J t = t − Σ eʸ·t.

    ∂/∂x (d·J t) = −Σ d · eʸ·(t − Σ eʸ·t)
    """

    curved = merges = True

    def __init__(self, dim):
        self.dim = dim

    def forward(self, run, values, weights, overwrite):
        y = values[0].log_softmax(self.dim, None if run.dtype is None else torch.float32)
        return y, (y, values[0].dtype)

    def rows(self, saved, rows):
        return saved[0][rows], saved[1]

    def vjp(self, saved, d):
        return ((d - saved[0].exp() * d.sum(self.dim, keepdim=True)).to(saved[1]),)

    def jvp(self, saved, ts):
        return ts[0] - (saved[0].exp() * ts[0]).sum(self.dim, keepdim=True)

    def bent(self, saved, d, ts):
        probability = saved[0].exp()
        t = ts[0] - (probability * ts[0]).sum(self.dim, keepdim=True)
        return ((-d.sum(self.dim, keepdim=True) * probability * t).to(saved[1]),)
